// One row per bridge: the image side with its images, the numbers, the text side with its captions.

import type { Bridges, Concepts } from "../contract"
import { detail, text } from "../data"
import { h, said } from "../dom"
import { count, number, score } from "../format"
import type { Page } from "../page"
import { conceptLink } from "./concept"
import { pairLink } from "./pairs"
import { pictureStrip } from "./pictures"
import { whenSeen } from "./seen"

const PICTURES = 6
const CAPTIONS = 3

/** Bridges as rows; `own` is the concept whose page this is. Images and captions are read when a row is seen. */
export function bridgeRows(
  page: Page,
  concepts: Concepts,
  bridges: Bridges,
  rows: readonly number[],
  own: number | null = null,
): HTMLElement {
  return h(
    "ol",
    { class: "bridges" },
    rows.map((row) => bridgeRow(page, concepts, bridges, row, own)),
  )
}

/** The row of one bridge. */
export function bridgeRow(
  page: Page,
  concepts: Concepts,
  bridges: Bridges,
  row: number,
  own: number | null,
): HTMLElement {
  const imageSide = bridges.image_concept[row] as number
  const textSide = bridges.text_concept[row] as number
  const side = (concept: number, name: string, content: HTMLElement | false) =>
    h(
      "div",
      { class: "bridge-side" },
      h(
        "p",
        { class: "side-head" },
        h("span", { class: "side-word" }, name),
        concept === own ? h("span", { class: "own" }, "this concept") : conceptLink(page.run, concepts, concept),
      ),
      content,
    )
  const value = (name: string, written: string) => h("div", {}, h("dt", {}, name), h("dd", {}, written))
  const { manifest, run } = page
  return h(
    "li",
    { class: "bridge" },
    side(
      imageSide,
      "in images",
      manifest.items && pictureStrip(async () => (await detail(manifest, run, imageSide))?.images ?? [], PICTURES),
    ),
    h(
      "div",
      { class: "bridge-numbers" },
      h(
        "dl",
        {},
        value("bridge", number(bridges.bridge[row])),
        value("covariance", number(bridges.covariance_bridge[row])),
        value("correlation", score(bridges.correlation_bridge[row])),
        value("cosine", score(bridges.cosine[row])),
        value("pairs", count(bridges.pairs[row] ?? 0)),
      ),
      imageSide === textSide && h("p", { class: "self" }, "with itself"),
      manifest.items && example(page, imageSide, textSide),
    ),
    side(textSide, "in captions", manifest.items && sideCaptions(page, textSide)),
  )
}

function sideCaptions({ manifest, run }: Page, concept: number): HTMLElement {
  const list = h("ul", { class: "side-captions" })
  for (let at = 0; at < CAPTIONS; at++) list.append(h("li", { class: "waiting", "aria-hidden": "true" }))
  whenSeen(list, () => {
    void detail(manifest, run, concept)
      .then((own) => Promise.all((own?.texts.slice(0, CAPTIONS) ?? []).map(({ item }) => text(item))))
      .then((texts) => list.replaceChildren(...texts.map((shown) => h("li", {}, said(shown?.caption ?? "", 1)))))
      .catch((error: unknown) => list.replaceChildren(h("li", { class: "muted" }, String(error))))
  })
  return list
}

/** A link to a pair of the study on which both sides of a bridge fire most; nothing where their top items share none. */
function example({ manifest, run }: Page, imageSide: number, textSide: number): HTMLElement {
  const place = h("p", { class: "bridge-example" })
  whenSeen(place, () => {
    void Promise.all([detail(manifest, run, imageSide), detail(manifest, run, textSide)])
      .then(async ([own, other]) => {
        const images = new Set(own?.images.map(({ item }) => item))
        for (const { item } of other?.texts ?? []) {
          const image = (await text(item))?.image
          if (image === undefined || !images.has(image)) continue
          place.append(pairLink(run, image, item, `A pair of concept ${imageSide} and concept ${textSide}`))
          return
        }
      })
      .catch((error: unknown) => place.replaceChildren(String(error)))
  })
  return place
}
