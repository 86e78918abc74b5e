// One image or caption: its text or picture, the items it is paired with, and the concepts that reconstruct it.

import type { ItemId } from "../contract"
import * as data from "../data"
import { clip, h, said } from "../dom"
import { counted } from "../format"
import { HEADING, type Page } from "../page"
import { codeList } from "../parts/codes"
import { empty, failure, loading } from "../parts/notice"
import { pairLink } from "../parts/pairs"
import { describe, itemHref, thumbnail } from "../parts/pictures"

/** Draw the item in the address: i and the number of an image, or t and the number of a caption. */
export async function itemView(page: Page): Promise<void> {
  const { route, root, signal } = page
  const [, kind, digits] = /^([it])(\d+)$/.exec(route.argument) ?? []
  const id = Number(digits)
  root.replaceChildren(loading("the item"))
  const shown = kind === "i" ? await imageHead(page, id) : kind === "t" ? await captionHead(page, id) : null
  if (signal.aborted) return
  if (!shown) {
    root.replaceChildren(
      empty(
        "There is no such item here",
        "Only items on which a concept fires, or that the study counted, are shown. Search finds them by caption.",
      ),
    )
    return
  }
  const codes = h("section", { class: "block" }, h("h2", {}, "Concepts that reconstruct it"), loading("concepts"))
  root.replaceChildren(shown, codes)
  await fillCodes(codes, page, kind === "i" ? "image" : "text", id)
}

async function imageHead(page: Page, id: ItemId): Promise<HTMLElement | null> {
  const { manifest, run } = page
  const image = await data.image(id)
  if (!image) return null
  const [alt, captions] = await Promise.all([
    describe(image),
    Promise.all(image.captions.map((caption) => data.text(caption))),
  ])
  return h(
    "div",
    { class: "item-head" },
    picture(manifest.live, id, image, alt),
    h(
      "div",
      {},
      h("p", { class: "eyebrow" }, splitWord("Image", image.split)),
      h("h1", { id: HEADING, tabindex: -1 }, said(clip(alt, 90), 3)),
      h(
        "p",
        { class: "muted" },
        h("bdi", { class: "key-name" }, clip(image.key, 120)),
        ` · ${image.width} × ${image.height} pixels`,
      ),
      h("h2", {}, counted(image.captions.length, "caption")),
      h(
        "ul",
        { class: "plain" },
        image.captions.map((caption, at) =>
          h(
            "li",
            {},
            h("a", { href: itemHref(run, "text", caption) }, said(captions[at]?.caption ?? `caption ${caption}`, 6)),
            " ",
            pairLink(run, id, caption, `Caption ${at + 1}`),
          ),
        ),
      ),
    ),
  )
}

/** The image itself if a server has it, else its thumbnail. */
function picture(live: boolean, id: ItemId, image: data.Image, alt: string): HTMLElement {
  const none = h("span", { class: "thumb none" }, "no picture")
  if (!live && !image.thumb) return h("div", { class: "item-picture" }, none)
  const shown = h("img", { alt, src: live ? `api/image/${id}` : (image.thumb ?? "") })
  let left = live ? image.thumb : null // if the store has no bytes, the thumbnail is shown; without one, a text
  shown.addEventListener("error", () => {
    if (left) shown.src = left
    else shown.replaceWith(none)
    left = null
  })
  return h("div", { class: "item-picture" }, shown)
}

async function captionHead(page: Page, id: ItemId): Promise<HTMLElement | null> {
  const { run } = page
  const caption = await data.text(id)
  if (!caption) return null
  return h(
    "div",
    { class: "item-head" },
    h(
      "a",
      { class: "item-picture", href: itemHref(run, "image", caption.image) },
      await thumbnail(caption.image, true),
    ),
    h(
      "div",
      {},
      h("p", { class: "eyebrow" }, splitWord("Caption", caption.split)),
      h("h1", { id: HEADING, tabindex: -1, class: "caption-title" }, said(caption.caption, 6)),
      h(
        "p",
        { class: "muted" },
        "Paired with ",
        h("a", { href: itemHref(run, "image", caption.image) }, "its image"),
        ". ",
        pairLink(run, caption.image, id, "The caption and its image"),
      ),
    ),
  )
}

function splitWord(kind: string, split: string): string {
  return split === "heldout" ? `${kind}, held out of training` : `${kind}, split ${split}`
}

async function fillCodes(section: HTMLElement, page: Page, modality: data.Modality, id: ItemId): Promise<void> {
  const title = h("h2", {}, "Concepts that reconstruct it")
  try {
    const [concepts, codes] = await Promise.all([data.concepts(page.run), data.codes(page.run, modality, id)])
    section.replaceChildren(
      title,
      codes
        ? codeList(
            page,
            concepts,
            codes.concept.map((concept, at) => ({
              concept,
              activation: codes.activation[at] ?? 0,
              share: codes.share[at] ?? 0,
            })),
            codes.bias,
          )
        : empty("Not known", `The site holds no codes of this item for ${page.run.key}.`),
    )
  } catch (error) {
    section.replaceChildren(
      title,
      failure(error, () => void fillCodes(section, page, modality, id)),
    )
  }
}
