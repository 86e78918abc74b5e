// The concepts that were selected on the map: a list with ticks, and ways to take them away.

import type { Concepts } from "../contract"
import { h } from "../dom"
import { counted, number } from "../format"
import type { Page } from "../page"
import { conceptLink } from "../parts/concept"
import type { Table } from "../parts/download"
import { takeAway } from "../parts/selection"

const AT_ONCE = 100

/** Fill the panel of the selection; `toggle` takes a concept out, `clear` all. */
export function fillPicked(
  panel: HTMLElement,
  page: Page,
  concepts: Concepts,
  picked: readonly number[],
  toggle: (concept: number) => void,
  clear: () => void,
  isTooLong: boolean,
): void {
  const { run, manifest } = page
  const list = h("ul", { class: "ticks" })
  const more = h("button", { class: "button", type: "button" })
  const grow = () => {
    const start = list.children.length
    for (const concept of picked.slice(start, start + AT_ONCE))
      list.append(
        h(
          "li",
          {},
          tickBox(concept, true, toggle),
          conceptLink(run, concepts, concept),
          h("span", { class: "value" }, number(concepts.energy[concept])),
        ),
      )
    more.hidden = list.children.length >= picked.length
    more.textContent = `Show ${Math.min(AT_ONCE, picked.length - list.children.length)} more`
  }
  more.addEventListener("click", grow)
  grow()
  panel.replaceChildren(
    h(
      "header",
      { class: "panel-head" },
      h("h2", {}, `${counted(picked.length, "concept")} selected`),
      h("button", { class: "icon-button", type: "button", "aria-label": "Clear the selection", onclick: clear }, "×"),
    ),
    ...(isTooLong
      ? [
          h(
            "p",
            { class: "notice small" },
            "The selection is too long for the address of the page (4,000 characters). A copied address opens the map without it; CSV keeps it.",
          ),
        ]
      : []),
    takeAway(page, {
      name: `${manifest.study}-${run.key.replaceAll("/", "-")}-concepts`,
      query: () => conceptsQuery(page, picked),
      table: async () => conceptsCsv(concepts, picked),
    }),
    h("p", { class: "muted small" }, "The number is the energy. The strongest bridges of the selection are drawn."),
    list,
    more,
  )
}

/** The box that ticks a concept. */
export function tickBox(concept: number, checked: boolean, toggle: (concept: number) => void): HTMLInputElement {
  const box = h("input", { type: "checkbox", checked, "aria-label": `Select concept ${concept}` })
  box.addEventListener("change", () => toggle(concept))
  return box
}

function conceptsQuery({ run }: Page, picked: readonly number[]): string {
  const literal = (text: string) => `'${text.replaceAll("'", "''")}'`
  return (
    `FROM concepts\nWHERE model = ${literal(run.model)} AND sae = ${literal(run.sae)} AND seed = ${run.seed}\n` +
    `  AND concept_id IN (${picked.join(", ")})\nORDER BY concept_id`
  )
}

/** All columns of some concepts. */
export function conceptsCsv(concepts: Concepts, picked: readonly number[]): Table {
  const columns = Object.keys(concepts) as (keyof Concepts)[]
  return {
    columns: ["concept_id", ...columns],
    rows: picked.map((concept) => [concept, ...columns.map((column) => concepts[column][concept])]),
  }
}
