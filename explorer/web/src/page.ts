// What every view is given, and what it may give back.

import type { Manifest, Run } from "./contract"
import type { Route } from "./route"

export interface Page {
  manifest: Manifest
  run: Run
  route: Route
  root: HTMLElement
  /** Aborted when the reader goes elsewhere: ends requests and listeners. */
  signal: AbortSignal
}

/** Draws a page into its root; whatever it throws is shown with a way to try again. */
export type View = (page: Page) => Promise<void>

/** The run of a key; null when the study has none of that name. */
export function runOf(manifest: Manifest, key: string | null): Run | null {
  return manifest.runs.find((run) => run.key === key) ?? null
}

/** The heading of a page, which takes the focus when the reader comes from another. */
export const HEADING = "page-heading"
