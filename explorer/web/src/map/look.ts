// The map's choices of colour and size, in the left column.

import type { Concepts } from "../contract"
import { h } from "../dom"
import type { Page } from "../page"
import { here } from "../route"
import { LABEL, QUERY, columnsOf, labelsOf } from "./columns"

/** Controls of what colours and sizes show; `changed` receives parameters for the address. */
export function lookControls(
  { manifest, run }: Page,
  concepts: Concepts,
  changed: (params: Record<string, string>) => void,
): HTMLElement {
  const { params } = here()
  const columns = columnsOf(concepts)
  const labels = labelsOf(concepts)
  const box = h("div", { class: "look" })
  const choice = (label: string, name: string, first: string, options: Record<string, string>) => {
    const select = h(
      "select",
      {},
      Object.entries(options).map(([value, text]) =>
        h("option", { value, selected: value === (params[name] || first) }, text),
      ),
    )
    select.addEventListener("change", () => {
      changed({ [name]: select.value === first ? "" : select.value })
      more()
    })
    return h("label", { class: "field" }, label, select)
  }
  const extra = h("div", {})
  const more = () => {
    const { colour, label, cq } = here().params
    if (colour === LABEL) {
      const select = h(
        "select",
        {},
        h("option", { value: "" }, "choose a label"),
        labels.map((value) => h("option", { value, selected: value === label }, value)),
      )
      select.addEventListener("change", () => changed({ label: select.value }))
      extra.replaceChildren(h("label", { class: "field" }, "Label", select))
    } else if (colour === QUERY) {
      const text = h("textarea", { rows: 5, spellcheck: "false", class: "look-query" })
      const literal = (value: string) => `'${value.replaceAll("'", "''")}'`
      text.value =
        cq ??
        `SELECT concept_id, modality_auc\nFROM concepts\nWHERE model = ${literal(run.model)} AND sae = ${literal(run.sae)} AND seed = ${run.seed}`
      const use = () => changed({ cq: text.value })
      extra.replaceChildren(
        h("label", { class: "field" }, "A query that returns concept_id and a number", text),
        h("button", { class: "button small-button", type: "button", onclick: use }, "Colour by its result"),
      )
    } else extra.replaceChildren()
  }
  more()
  box.append(
    choice("Colour", "colour", "modality", {
      ...columns,
      ...(labels.length ? { [LABEL]: "a label" } : {}),
      ...(manifest.live ? { [QUERY]: "a query's result" } : {}),
    }),
    extra,
    choice("Size", "size", "energy", columns),
  )
  return box
}
