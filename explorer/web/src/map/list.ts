// The map's concepts as a table, to read and to sort.

import type { Concepts } from "../contract"
import { h } from "../dom"
import { count, number, percent, score } from "../format"
import type { Page } from "../page"
import { conceptLink } from "../parts/concept"
import { empty } from "../parts/notice"
import { here, href } from "../route"
import { saveCsv } from "../parts/download"
import { conceptsCsv, tickBox } from "./picked"

const AT_ONCE = 100

export interface Ticks {
  picked: ReadonlySet<number>
  toggle: (concept: number) => void
}

const COLUMNS = {
  energy: { title: "energy", write: (value: number | null) => number(value) },
  modality_score: { title: "modality", write: score },
  rate_image: { title: "images", write: (value: number | null) => percent(value) },
  rate_text: { title: "captions", write: (value: number | null) => percent(value) },
  stability: { title: "stability", write: score },
  monosemanticity: { title: "monosemanticity", write: score },
  firings: { title: "firings", write: (value: number | null) => count(value ?? 0) },
} as const
type Column = keyof typeof COLUMNS

/** The concepts that pass the filters, sorted by a column, largest first. A button shows a hundred more at a time. */
export function conceptTable(
  page: Page,
  concepts: Concepts,
  passing: Uint8Array,
  sort: string,
  ticks: Ticks,
): HTMLElement {
  const column: Column = sort in COLUMNS ? (sort as Column) : "energy"
  const values = concepts[column]
  const order = [...passing.keys()]
    .filter((concept) => passing[concept])
    .sort((a, b) => (values[b] ?? -Infinity) - (values[a] ?? -Infinity) || a - b)
  if (!order.length) return empty("No concept passes these filters", "Widen one of them, or reset them all.")
  const body = h("tbody")
  const more = h("button", { class: "button", type: "button" })
  const grow = () => {
    for (const concept of order.slice(body.rows.length, body.rows.length + AT_ONCE)) {
      body.append(
        h(
          "tr",
          {},
          h(
            "th",
            { scope: "row" },
            h(
              "span",
              { class: "ticked-name" },
              tickBox(concept, ticks.picked.has(concept), ticks.toggle),
              conceptLink(page.run, concepts, concept),
            ),
          ),
          Object.entries(COLUMNS).map(([name, { write }]) =>
            h("td", { class: "n" }, write(concepts[name as Column][concept] ?? null)),
          ),
        ),
      )
    }
    const left = order.length - body.rows.length
    more.hidden = left <= 0
    more.textContent = `Show ${Math.min(left, AT_ONCE)} more`
  }
  more.addEventListener("click", grow)
  grow()
  const heads = Object.entries(COLUMNS).map(([name, { title }]) =>
    h(
      "th",
      { scope: "col", class: "n", "aria-sort": name === column ? "descending" : undefined },
      h("a", { href: href({ ...here(), params: { ...here().params, sort: name } }) }, title),
    ),
  )
  const name = `${page.manifest.study}-${page.run.key.replaceAll("/", "-")}-concepts.csv`
  const download = () => saveCsv(conceptsCsv(concepts, order), name)
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": "Concepts", "data-download": "own" },
    h(
      "p",
      {},
      h("button", { class: "button small-button", type: "button", onclick: download }, "Download all rows as CSV"),
    ),
    h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "concept"), heads)), body),
    h("p", {}, more),
  )
}
