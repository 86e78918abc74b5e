// Images and captions of a concept. Thumbnails are loaded when seen. Long captions are shortened by CSS alone.

import type { ItemId, Run } from "../contract"
import { type Image, image, text } from "../data"
import { clip, h, said } from "../dom"
import { number } from "../format"
import type { Page } from "../page"
import { href } from "../route"
import { withheld } from "./notice"
import { whenSeen } from "./seen"

interface Fired {
  item: ItemId
  activation: number
}

export function itemHref(run: Run, modality: "image" | "text", item: ItemId): string {
  return href({ view: "item", argument: `${modality === "image" ? "i" : "t"}${item}`, run: run.key })
}

/** The alternative text of an image: its first caption, or its key. */
export async function describe(shown: Image): Promise<string> {
  const first = shown.captions[0]
  const caption = first === undefined ? null : await text(first)
  return clip(caption?.caption ?? shown.key)
}

/** A thumbnail in a box of fixed shape, or the key of an image without one. `inPassing`: loaded with low priority. */
export async function thumbnail(item: ItemId, eager = false, inPassing = false): Promise<HTMLElement> {
  const shown = await image(item)
  if (!shown) return h("span", { class: "thumb none" }, `image ${item}`)
  const alt = await describe(shown)
  if (!shown.thumb) return h("span", { class: "thumb none", title: alt }, said(clip(shown.key, 40)))
  return h(
    "span",
    { class: "thumb" },
    h("img", {
      fetchpriority: inPassing ? "low" : eager ? "high" : "auto",
      loading: eager ? "eager" : "lazy",
      decoding: "async",
      src: shown.thumb,
      alt,
      title: alt,
    }),
  )
}

/** A grid of images with the activation under each; the first `eager` are loaded at once. */
async function pictureGrid(run: Run, fired: readonly Fired[], eager = 12): Promise<HTMLElement> {
  const thumbs = await Promise.all(fired.map(({ item }, at) => thumbnail(item, at < eager)))
  return h(
    "ul",
    { class: "pictures" },
    fired.map(({ item, activation }, at) =>
      h(
        "li",
        {},
        h(
          "a",
          {
            href: itemHref(run, "image", item),
            "aria-label": `${label(thumbs[at])}, activation ${number(activation)}`,
          },
          thumbs[at],
          h("span", { class: "activation", "aria-hidden": "true" }, number(activation)),
        ),
      ),
    ),
  )
}

function label(thumb: HTMLElement | undefined): string {
  return thumb?.querySelector("img")?.alt ?? thumb?.textContent ?? "image"
}

/** A concept's top images, or the reason why there are none. */
export async function topImages({ manifest, run }: Page, fired: readonly Fired[]): Promise<HTMLElement> {
  if (!manifest.items) return withheld("Images")
  return fired.length ? pictureGrid(run, fired) : h("p", { class: "muted" }, "The concept fires on no image.")
}

/** A concept's top captions, or the reason why there are none. */
export async function topCaptions({ manifest, run }: Page, fired: readonly Fired[]): Promise<HTMLElement> {
  if (!manifest.items) return withheld("Captions")
  return fired.length ? captionList(run, fired) : h("p", { class: "muted" }, "The concept fires on no caption.")
}

/** A row of `limit` images without numbers, loaded when it is seen. */
export function pictureStrip(fired: () => Promise<readonly Fired[]>, limit: number): HTMLElement {
  const strip = h("span", { class: "strip", "aria-hidden": "true" })
  for (let at = 0; at < limit; at++) strip.append(h("span", { class: "thumb waiting" }))
  whenSeen(strip, () => {
    void fired()
      .then((all) => Promise.all(all.slice(0, limit).map(({ item }) => thumbnail(item, true, true))))
      .then((thumbs) => strip.replaceChildren(...thumbs))
      .catch((error: unknown) => strip.replaceChildren(h("span", { class: "muted" }, String(error))))
  })
  return strip
}

/** A list of captions. The bar of each shows its activation relative to the strongest. */
async function captionList(run: Run, fired: readonly Fired[]): Promise<HTMLElement> {
  const strongest = Math.max(...fired.map(({ activation }) => activation), Number.MIN_VALUE)
  const texts = await Promise.all(fired.map(({ item }) => text(item)))
  return h(
    "ol",
    { class: "captions" },
    fired.map(({ item, activation }, at) =>
      h(
        "li",
        {},
        h(
          "a",
          { href: itemHref(run, "text", item) },
          said(texts[at]?.caption ?? `caption ${item}`, 3),
          h("span", { class: "activation" }, number(activation)),
        ),
        bar(activation / strongest),
      ),
    ),
  )
}

/** A thin horizontal bar, share of the full width in [0, 1]; a decoration beside a number. */
export function bar(share: number, kind = ""): HTMLElement {
  const fill = h("span", { class: `bar-fill ${kind}` })
  fill.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`
  return h("span", { class: "bar", "aria-hidden": "true" }, fill)
}
