// The link from a concept to the map of items, where its items are lit.

import { h } from "../dom"
import type { Page } from "../page"
import { href } from "../route"

/** The link; null where the study has no map of items. */
export function itemsLink({ manifest, run }: Pick<Page, "manifest" | "run">, concept: number): HTMLElement | null {
  if (!manifest.items || !manifest.maps.some(({ model }) => model === run.model)) return null
  const address = href({ view: "items", run: run.key, params: { concept: String(concept) } })
  return h("a", { class: "button", href: address }, "Highlight its items")
}
