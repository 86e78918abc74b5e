// The interface between the page and its views.

import type { Manifest, Run } from "./contract"
import type { Route } from "./route"

export interface Page {
  manifest: Manifest
  run: Run
  route: Route
  root: HTMLElement
  /** Aborted when the reader leaves the view: ends requests and listeners. */
  signal: AbortSignal
}

/** Draws a view into its root; an error that it throws is shown with a button to try again. */
export type View = (page: Page) => Promise<void>

/** The run of a key; null when the study has no such run. */
export function runOf(manifest: Manifest, key: string | null): Run | null {
  return manifest.runs.find((run) => run.key === key) ?? null
}

/** Id of a view's heading, which takes the focus when the reader comes from another view. */
export const HEADING = "page-heading"
