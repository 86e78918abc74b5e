// The right column of the map of items: the item under the ring, the selection, and the concepts that it shares.

import type { Concepts, ItemMap } from "../contract"
import * as data from "../data"
import { h, said } from "../dom"
import { count, counted, number, percent } from "../format"
import type { Page } from "../page"
import { conceptLink } from "../parts/concept"
import type { Table } from "../parts/download"
import { failure, loading } from "../parts/notice"
import { itemHref, thumbnail } from "../parts/pictures"
import { takeAway } from "../parts/selection"
import { here, href } from "../route"
import { type Shift, shiftQuery, shifted } from "./shift"

const AT_ONCE = 60
const SHARED = 12
const MOST_ASKED = 5000 // ids in a statement to the server

export interface Chosen {
  page: Page
  map: ItemMap
  items: data.MapItems
  places: { x: Int16Array; y: Int16Array }
  concepts: Concepts
}

export const modalityOf = (map: ItemMap, item: number): data.Modality => (item < map.images ? "image" : "text")

/** The words of an item: its caption, or the first caption of an image; null when the site does not show it. */
export async function wordsOf(modality: data.Modality, id: number): Promise<string | null> {
  if (modality === "text") return (await data.text(id))?.caption ?? null
  const shown = await data.image(id)
  if (!shown) return null
  const first = shown.captions[0]
  return (first === undefined ? null : (await data.text(first))?.caption) ?? shown.key
}

/** An item: its picture, its words, and its strongest concepts, each of which can be lit. */
export function itemCard({ page, map, items, concepts }: Chosen, item: number, whole: boolean): HTMLElement {
  const modality = modalityOf(map, item)
  const id = items.id[item] as number
  const box = h("div", {}, loading("the item"))
  void (async () => {
    const [words, codes] = await Promise.all([wordsOf(modality, id), whole ? data.codes(page.run, modality, id) : null])
    const picture = modality === "image" ? await thumbnail(id, true) : null
    const unknown = `${modality === "image" ? "Image" : "Caption"} ${id}: this site does not show it.`
    box.replaceChildren(
      h("p", { class: "eyebrow" }, modality === "image" ? "Image" : "Caption"),
      ...(picture ? [picture] : []),
      h("p", { class: "card-words" }, words === null ? unknown : said(words, 6)),
    )
    if (!whole || words === null) return
    box.append(h("p", {}, h("a", { class: "button", href: itemHref(page.run, modality, id) }, "Open this item")))
    if (codes?.concept.length)
      box.append(
        h("h3", {}, "Its concepts"),
        h(
          "ul",
          { class: "partners" },
          codes.concept
            .slice(0, 8)
            .map((concept, at) =>
              h(
                "li",
                {},
                conceptLink(page.run, concepts, concept),
                h("a", { class: "small", href: lightHref(concept) }, "highlight its items"),
                h("span", { class: "value" }, number(codes.activation[at])),
              ),
            ),
        ),
      )
  })().catch((error: unknown) => box.replaceChildren(failure(error)))
  return box
}

export function lightHref(concept: number): string {
  const route = here()
  return href({ ...route, view: "items", params: { ...route.params, concept: String(concept) } })
}

/** The selection: ways to take it away, what it shares, and its list with ticks. */
export function selectionPanel(of: Chosen, numbers: readonly number[], untick: (item: number) => void): HTMLElement {
  const { page, map } = of
  const images = numbers.filter((item) => item < map.images).length
  const list = h("ul", { class: "ticks" })
  const more = h("button", { class: "button", type: "button" })
  const grow = () => {
    const start = list.children.length
    for (const item of numbers.slice(start, start + AT_ONCE)) list.append(tick(of, item, untick))
    const left = numbers.length - list.children.length
    more.hidden = left <= 0
    more.textContent = `Show ${Math.min(left, AT_ONCE)} more`
  }
  more.addEventListener("click", grow)
  grow()
  return h(
    "section",
    { "aria-label": "Selection" },
    h("h2", {}, `${counted(numbers.length, "item")} selected`),
    h("p", { class: "muted small" }, `${counted(images, "image")}, ${counted(numbers.length - images, "caption")}`),
    takeAway(page, {
      name: `${page.manifest.study}-items`,
      query: () => itemsQuery(of, numbers),
      table: () => itemsTable(of, numbers),
    }),
    h("h3", {}, "What they share"),
    shared(of, numbers),
    h("h3", {}, "Items"),
    list,
    more,
  )
}

function tick(of: Chosen, item: number, untick: (item: number) => void): HTMLElement {
  const modality = modalityOf(of.map, item)
  const id = of.items.id[item] as number
  const box = h("input", { type: "checkbox", checked: true })
  box.addEventListener("change", () => untick(item))
  const words = h("span", { class: "tick-words" }, `${modality} ${id}`)
  void wordsOf(modality, id).then(
    (text) => text !== null && words.replaceChildren(said(text, 2)),
    () => undefined, // the number of the item stays
  )
  return h(
    "li",
    {},
    h("label", {}, box, h("span", { class: `dot of-${modality}`, "aria-hidden": "true" }), words),
    h("a", { href: itemHref(of.page.run, modality, id), "aria-label": `Open ${modality} ${id}` }, "open"),
  )
}

function idsOf({ map, items }: Chosen, numbers: readonly number[]): { images: number[]; texts: number[] } {
  const ids = { images: [] as number[], texts: [] as number[] }
  for (const item of numbers) ids[item < map.images ? "images" : "texts"].push(items.id[item] as number)
  return ids
}

function itemsQuery(of: Chosen, numbers: readonly number[]): string {
  const { images, texts } = idsOf(of, numbers)
  const parts = []
  if (images.length)
    parts.push(
      "SELECT 'image' AS modality, image_id AS item_id, image_id, source_key, split, NULL AS caption\n" +
        `FROM images WHERE image_id IN (${images.join(", ")})`,
    )
  if (texts.length)
    parts.push(
      "SELECT 'text' AS modality, pair_id AS item_id, image_id, source_key, split, caption\n" +
        `FROM pairs WHERE pair_id IN (${texts.join(", ")})`,
    )
  return `${parts.join("\nUNION ALL\n")}\nORDER BY modality, item_id`
}

async function itemsTable({ page, map, items, places }: Chosen, numbers: readonly number[]): Promise<Table> {
  const captions = page.manifest.items ? await data.captions() : null
  const captionOf = new Map(captions?.id.map((id, at) => [id, captions.caption[at]] as const))
  const rows = numbers.map((item) => {
    const id = items.id[item] as number
    const isText = item >= map.images
    const place = (values: Int16Array) => ((values[item] as number) / 32767).toFixed(5)
    return [isText ? "text" : "image", id, place(places.x), place(places.y), isText ? captionOf.get(id) : null]
  })
  return { columns: ["modality", "item_id", "x", "y", "caption"], rows }
}

/** The concepts that fire more on the selected items than on the others beyond chance, per modality. */
function shared(of: Chosen, numbers: readonly number[]): HTMLElement {
  const { page, map } = of
  if (!page.manifest.firings && !page.manifest.live)
    return h(
      "p",
      { class: "muted small" },
      "This needs the codes of all items, which a site of a large study lacks: open the study with bridgescope explore.",
    )
  const box = h("div", { class: "shared" }, loading("the concepts"))
  const ids = idsOf(of, numbers)
  void (async () => {
    const parts = []
    for (const [modality, own, from, to] of [
      ["image", ids.images, 0, map.images],
      ["text", ids.texts, map.images, map.items],
    ] as const) {
      if (!own.length) continue
      const title = h("h4", {}, `${counted(own.length, modality === "image" ? "image" : "caption")}`)
      if (own.length === to - from) parts.push(title, h("p", { class: "muted small" }, "All of them are selected."))
      else parts.push(title, sharedList(of, await shifts(of, modality, own, numbers, from, to)))
    }
    box.replaceChildren(
      ...parts,
      h(
        "p",
        { class: "muted small" },
        "Concepts that fire more on the selected items than on all others of their modality, at a false discovery rate " +
          "of 10% (concept_shift).",
      ),
    )
  })().catch((error: unknown) => box.replaceChildren(failure(error)))
  return box
}

async function shifts(
  of: Chosen,
  modality: data.Modality,
  ids: readonly number[],
  numbers: readonly number[],
  from: number,
  to: number,
): Promise<Shift[]> {
  const { page, items, map } = of
  if (page.manifest.firings) {
    const chosen = new Uint8Array(map.items)
    for (const item of numbers) chosen[item] = 1
    return shifted(page.manifest, page.run, items, chosen, from, to)
  }
  if (ids.length > MOST_ASKED)
    throw new data.DataError(`The server is asked about at most ${count(MOST_ASKED)} items: select fewer.`)
  const { columns, rows } = await data.sql(shiftQuery(page.run, modality, ids), page.signal)
  const at = (name: string) => columns.findIndex((column) => column.name === name)
  return rows.map((row) => ({
    concept: Number(row[at("concept_id")]),
    rateIn: Number(row[at("rate_a")]),
    rateOut: Number(row[at("rate_b")]),
    energyDifference: Number(row[at("energy_difference")]),
    q: Math.min(Number(row[at("energy_q")]), Number(row[at("rate_q")])),
  }))
}

function sharedList({ page, concepts }: Chosen, found: readonly Shift[]): HTMLElement {
  if (!found.length) return h("p", { class: "muted small" }, "No concept fires on them more often than by chance.")
  return h(
    "div",
    {},
    h(
      "ol",
      { class: "partners" },
      found
        .slice(0, SHARED)
        .map(({ concept, rateIn, rateOut }) =>
          h(
            "li",
            {},
            conceptLink(page.run, concepts, concept),
            h("a", { class: "small", href: lightHref(concept) }, "highlight"),
            h(
              "span",
              { class: "value", title: "share of the selected items, of the others" },
              `${percent(rateIn, 0)} / ${percent(rateOut, 0)}`,
            ),
          ),
        ),
    ),
    found.length > SHARED &&
      h("p", { class: "muted small" }, `The ${SHARED} clearest of ${count(found.length)} are shown.`),
  )
}
