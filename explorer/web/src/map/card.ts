// The card beside the dot under the pointer, and the panel of the selected dot.

import { modalityWord } from "../colour"
import type { Bridges, Concepts, Manifest, Run } from "../contract"
import { detail, text } from "../data"
import { h, said } from "../dom"
import { number, percent, score } from "../format"
import type { Page } from "../page"
import { conceptHref, conceptLink, conceptText, modalityBar } from "../parts/concept"
import { failure, loading } from "../parts/notice"
import { thumbnail, topCaptions, topImages } from "../parts/pictures"
import { itemsLink } from "../parts/items"
import { ownRows } from "./scales"

const CARD_PICTURES = 4
const PANEL_PICTURES = 12
const PANEL_CAPTIONS = 5
const PANEL_BRIDGES = 8

/** The card of a concept: name and numbers at once, images when they are read. */
export function hoverCard({ manifest, run }: Page, concepts: Concepts, concept: number): HTMLElement {
  const pictures = h("span", { class: "strip" })
  const caption = h("p", { class: "card-caption" })
  if (manifest.items) {
    void detail(manifest, run, concept)
      .then(async (own) => {
        const shown = own?.images.slice(0, CARD_PICTURES) ?? []
        pictures.replaceChildren(...(await Promise.all(shown.map(({ item }) => thumbnail(item, true)))))
        const first = own?.texts[0]
        const words = first && (await text(first.item))
        if (words) caption.replaceChildren(said(words.caption, 2))
      })
      .catch(() => pictures.replaceChildren(h("span", { class: "muted" }, "images could not be read")))
  }
  return h(
    "div",
    { class: "card" },
    h("p", { class: "card-title" }, conceptText(concepts, concept)),
    facts(manifest, concepts, concept),
    pictures,
    caption,
  )
}

function facts({ definitions }: Manifest, concepts: Concepts, concept: number): HTMLElement {
  const modality = concepts.modality_score[concept] ?? null
  const word = modalityWord(modality, definitions)
  const row = (name: string, value: string) => h("div", {}, h("dt", {}, name), h("dd", {}, value))
  return h(
    "dl",
    { class: "card-facts" },
    row("modality", modality === null ? word : `${score(modality)}, ${word}`),
    row("energy", number(concepts.energy[concept])),
    row("stability", score(concepts.stability[concept])),
  )
}

/** Fill the panel of the selected concept: images, captions and bridges, all of them links. */
export async function fillPanel(
  panel: HTMLElement,
  page: Page,
  concepts: Concepts,
  bridges: Promise<Bridges>,
  ranked: (bridges: Bridges) => readonly number[],
  close: () => void,
): Promise<void> {
  const { manifest, run } = page
  const concept = Number(page.route.params.sel)
  const body = h("div", {}, loading("the concept"))
  panel.replaceChildren(
    h(
      "header",
      { class: "panel-head" },
      h("h2", {}, conceptText(concepts, concept)),
      h("button", { class: "icon-button", type: "button", "aria-label": "Close the panel", onclick: close }, "×"),
    ),
    modalityBar(concepts.modality_score[concept] ?? null, manifest.definitions),
    h(
      "p",
      { class: "panel-numbers" },
      `energy ${number(concepts.energy[concept])} · fires on ${percent(concepts.rate_image[concept])} of images, ` +
        `${percent(concepts.rate_text[concept])} of captions · stability ${score(concepts.stability[concept])}`,
    ),
    h("p", {}, h("a", { class: "button primary", href: conceptHref(run, concept) }, "Open this concept")),
    h("p", {}, itemsLink(page, concept)),
    body,
  )
  try {
    const [own, all] = await Promise.all([detail(manifest, run, concept), bridges])
    if (Number(panel.dataset.concept) !== concept || !own) return
    const [pictures, captions] = await Promise.all([
      topImages(page, own.images.slice(0, PANEL_PICTURES)),
      topCaptions(page, own.texts.slice(0, PANEL_CAPTIONS)),
    ])
    if (Number(panel.dataset.concept) !== concept) return
    body.replaceChildren(
      h("h3", {}, "Images"),
      pictures,
      h("h3", {}, "Captions"),
      captions,
      h("h3", {}, "Strongest bridges"),
      partners(run, concepts, all, ownRows(all, ranked(all), concept).slice(0, PANEL_BRIDGES), concept),
    )
    panel.dataset.filled = String(concept)
  } catch (error) {
    body.replaceChildren(failure(error))
  }
}

function partners(run: Run, concepts: Concepts, all: Bridges, rows: readonly number[], concept: number): HTMLElement {
  if (!rows.length) return h("p", { class: "muted" }, "The concept has no bridge with enough pairs to be stored.")
  return h(
    "ul",
    { class: "partners" },
    rows.map((row) => {
      const isImage = all.image_concept[row] === concept
      const other = (isImage ? all.text_concept[row] : all.image_concept[row]) as number
      return h(
        "li",
        {},
        conceptLink(run, concepts, other),
        h("span", { class: "side-word" }, isImage ? "in captions" : "in images"),
        h("span", { class: "value" }, number(all.bridge[row])),
      )
    }),
  )
}
