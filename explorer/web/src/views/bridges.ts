// All bridges of a run as a list, with the image side and the text side of each; sorted and searched.

import type { Bridges, Concepts, Words } from "../contract"
import * as data from "../data"
import { h } from "../dom"
import { count, counted } from "../format"
import { HEADING, type Page } from "../page"
import { bridgeRow } from "../parts/bridge"
import { nameOf } from "../parts/concept"
import { downloads, saveCsv, type Table } from "../parts/download"
import { empty, loading } from "../parts/notice"
import { whenSeen } from "../parts/seen"
import { here, note } from "../route"

const AT_ONCE = 30

const SORTS = {
  bridge: "bridge",
  covariance_bridge: "covariance bridge",
  correlation_bridge: "correlation bridge",
  cosine: "cosine of directions",
  pairs: "pairs",
  coactivation: "co-activation",
} as const
type Sort = keyof typeof SORTS

/** Draw the list that the address asks for. */
export async function bridgesView(page: Page): Promise<void> {
  const { run, root, signal } = page
  root.replaceChildren(loading("bridges"))
  const [concepts, bridges, words] = await Promise.all([data.concepts(run), data.bridges(run), data.words(run)])
  if (signal.aborted) return
  const list = h("ol", { class: "bridges" })
  const status = h("p", { class: "muted", role: "status" })
  const draw = () => fill(list, status, page, concepts, bridges, chosen(concepts, bridges, words))
  const asCsv = () => saveCsv(tableOf(concepts, bridges, chosen(concepts, bridges, words)), "bridges.csv")
  root.replaceChildren(
    h("h1", { id: HEADING, tabindex: -1 }, "Bridges"),
    h(
      "p",
      { class: "lead" },
      "A bridge joins a concept of an image with a concept of its caption. Its score is how much the two fire together, " +
        "times how alike their directions are. Two energetic concepts often have a large raw score, so the covariance and " +
        "the correlation are shown next to it.",
    ),
    controls(concepts, draw),
    status,
    downloads([["CSV", asCsv]], "list"),
    list,
  )
  draw()
}

function controls(concepts: Concepts, draw: () => void): HTMLElement {
  const { params } = here()
  const set = (values: Record<string, string>) => {
    note(values)
    draw()
  }
  const search = h("input", { type: "search", value: params.q ?? "", placeholder: "words or a number", maxlength: 200 })
  search.addEventListener("input", () => set({ q: search.value }))
  const sort = h(
    "select",
    {},
    Object.entries(SORTS).map(([value, label]) => h("option", { value, selected: value === sortOf(params) }, label)),
  )
  sort.addEventListener("change", () => set({ sort: sort.value }))
  const direction = h(
    "select",
    {},
    h("option", { value: "" }, "largest first"),
    h("option", { value: "up", selected: params.dir === "up" }, "smallest first"),
  )
  direction.addEventListener("change", () => set({ dir: direction.value }))
  const cross = h("input", { type: "checkbox", checked: params.self === "no" })
  cross.addEventListener("change", () => set({ self: cross.checked ? "no" : "" }))
  const only = params.concept === undefined ? null : Number(params.concept)
  const chip =
    only !== null && only in concepts.name
      ? h(
          "button",
          { class: "chip", type: "button", onclick: () => (set({ concept: "" }), chip?.remove()) },
          h("bdi", { dir: "auto", class: "clamp clamp-1" }, `only ${nameOf(concepts, only)} #${only}`),
          h("span", { "aria-hidden": "true" }, " ×"),
          h("span", { class: "visually-hidden" }, ": show all"),
        )
      : null
  return h(
    "div",
    { class: "controls", role: "search" },
    h("label", { class: "grow" }, "Search ", search),
    h("label", {}, "Sort by ", sort),
    h("label", {}, "Order ", direction),
    h("label", { class: "check" }, cross, "leave out bridges of a concept with itself"),
    chip,
  )
}

function sortOf(params: Record<string, string>): Sort {
  return params.sort && params.sort in SORTS ? (params.sort as Sort) : "bridge"
}

/** The rows that match the filters of the address, in its order. Each searched word must occur on either side. */
function chosen(concepts: Concepts, bridges: Bridges, words: Words): number[] {
  const { params } = here()
  const values = bridges[sortOf(params)]
  const asked = (params.q ?? "").toLocaleLowerCase().split(/\s+/).filter(Boolean)
  const haystack = concepts.name.map((name, concept) =>
    `${name} ${words[concept] ?? ""} #${concept} `.toLocaleLowerCase(),
  )
  const only = params.concept === undefined ? null : Number(params.concept)
  const rows = [...bridges.bridge.keys()].filter((row) => {
    const [i, j] = [bridges.image_concept[row] as number, bridges.text_concept[row] as number]
    if (params.self === "no" && i === j) return false
    if (only !== null && only !== i && only !== j) return false
    return asked.every((word) =>
      /^\d+$/.test(word) ? [i, j].includes(Number(word)) : haystack[i]?.includes(word) || haystack[j]?.includes(word),
    )
  })
  const sign = params.dir === "up" ? 1 : -1
  const last = sign * Infinity // missing values come last in either order
  return rows.sort((a, b) => sign * ((values[a] ?? last) - (values[b] ?? last)) || a - b)
}

/** These bridges with all their numbers and the names of their concepts, in this order. */
function tableOf(concepts: Concepts, bridges: Bridges, rows: readonly number[]): Table {
  const { image_concept, text_concept, ...numbers } = bridges
  const name = (of: number[], row: number) => concepts.name[of[row] as number]
  return {
    columns: ["image_concept", "image_name", "text_concept", "text_name", ...Object.keys(numbers)],
    rows: rows.map((row) => [
      image_concept[row],
      name(image_concept, row),
      text_concept[row],
      name(text_concept, row),
      ...Object.values(numbers).map((values) => values[row]),
    ]),
  }
}

function fill(
  list: HTMLElement,
  status: HTMLElement,
  page: Page,
  concepts: Concepts,
  bridges: Bridges,
  rows: number[],
): void {
  const total = bridges.bridge.length
  status.textContent =
    rows.length === total ? counted(total, "bridge") : `${count(rows.length)} of ${counted(total, "bridge")}`
  list.replaceChildren()
  if (!total) {
    list.replaceWith(
      empty("No bridge was stored", "No two concepts fire together on enough pairs to be stored (analyze.min_pairs)."),
    )
    return
  }
  if (!rows.length) {
    list.append(
      h("li", {}, empty("No bridge has these words", "Search looks at the automatic names, their words, and numbers.")),
    )
    return
  }
  const grow = (from: number) => {
    list.append(...rows.slice(from, from + AT_ONCE).map((row) => bridgeRow(page, concepts, bridges, row, null)))
    if (from + AT_ONCE >= rows.length) return
    const end = h("li", { class: "more" }, h("button", { class: "button", type: "button" }, "Show more"))
    const next = () => {
      if (!end.isConnected) return
      end.remove()
      grow(from + AT_ONCE)
    }
    end.addEventListener("click", next)
    whenSeen(end, next)
    list.append(end)
  }
  grow(0)
}
