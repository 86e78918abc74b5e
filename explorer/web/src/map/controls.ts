// The map's left column: map or list, filters, how many bridges.

import type { Bridges } from "../contract"
import { h } from "../dom"
import { count, number } from "../format"
import type { Page } from "../page"
import { go, here } from "../route"
import type { Filters } from "./filters"
import { scoreOf, shownOf } from "./place"
import { type Ranking, SCORES, positionOf, shownAt } from "./scales"

/** The elements of the column. */
export function sideColumn(filters: Filters, look: HTMLElement, bridges: readonly HTMLElement[]): HTMLElement[] {
  const reset = h("button", { class: "button quiet", type: "button", onclick: filters.reset }, "Reset the filters")
  return [
    h(
      "div",
      { class: "toggle", role: "group", "aria-label": "Map or list" },
      toggle("Map", ""),
      toggle("List", "list"),
    ),
    look,
    h(
      "details",
      { class: "map-filters", open: innerWidth > 760 },
      h("summary", {}, "Filters"),
      filters.element,
      ...bridges,
      reset,
    ),
  ]
}

function toggle(name: string, as: string): HTMLElement {
  const choose = () => go({ ...here(), params: { ...here().params, as } })
  return h("button", { type: "button", "data-as": as, onclick: choose }, name)
}

/** Controls of the number of bridges on the map, and of the score that ranks them. */
export function bridgeControls(
  { run, route }: Page,
  bridges: () => Promise<Bridges>,
  ranking: (bridges: Bridges) => Ranking,
  changed: (params: Record<string, string>) => void,
): HTMLElement[] {
  const out = h("output", { class: "range-value" })
  const slider = h("input", {
    type: "range",
    min: 0,
    max: 100,
    value: Math.round(positionOf(shownOf(route.params), run.bridges) * 100),
    "aria-label": "Bridges of the whole map, strongest first",
  })
  const scores = h(
    "select",
    {},
    Object.entries(SCORES).map(([value, label]) =>
      h("option", { value, selected: value === scoreOf(route.params) }, label),
    ),
  )
  const say = (text: string) => {
    out.textContent = text
    slider.setAttribute("aria-valuetext", text)
  }
  const describe = () => {
    if (!shownOf(here().params)) return say("none")
    void bridges().then(
      (all) => {
        const { rows, score } = ranking(all)
        const shown = Math.min(shownOf(here().params), rows.length)
        const last = shown > 0 ? Math.abs(all[score][rows[shown - 1] as number] ?? 0) : null
        say(last === null ? "none" : `${count(shown)}, |${SCORES[score]}| ≥ ${number(last, 2)}`)
      },
      () => say("–"),
    )
  }
  const change = (params: Record<string, string>) => {
    changed(params)
    describe()
  }
  slider.addEventListener("input", () => change({ edges: String(shownAt(Number(slider.value) / 100, run.bridges)) }))
  scores.addEventListener("change", () => change({ score: scores.value === "bridge" ? "" : scores.value }))
  describe()
  return [
    h(
      "div",
      { class: "range", role: "group", "aria-label": "Bridges of the whole map" },
      h("div", { class: "range-head" }, h("span", {}, "bridges"), out),
      h("div", { class: "range-track single" }, slider),
    ),
    h("label", { class: "small-choice" }, "ranked by ", scores),
  ]
}
