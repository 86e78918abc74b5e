// Lists of items that the live server found: images with their thumbnails, and captions, each with a number.

import type { ItemId, Run } from "../contract"
import { type Child, clip, h, said } from "../dom"
import { score } from "../format"
import { itemHref } from "./pictures"

/** An item that the server found. */
export interface Found {
  modality: "image" | "text"
  item: ItemId
  caption: string | null
  thumb: string | null
  value: number
}

/** The images among the items; `measure` names the number of each, `beside` makes what stands below an image. */
export function foundImages(
  run: Run,
  items: readonly Found[],
  measure: string,
  beside?: (item: ItemId, alt: string) => Child,
): HTMLElement {
  return h(
    "ul",
    { class: "pictures" },
    items
      .filter(({ modality }) => modality === "image")
      .map(({ item, caption, thumb, value }) => {
        const alt = clip(caption ?? `image ${item}`)
        return h(
          "li",
          {},
          h(
            "a",
            { href: itemHref(run, "image", item), "aria-label": `${alt}, ${measure} ${score(value)}` },
            thumb
              ? h("span", { class: "thumb" }, h("img", { src: thumb, alt, title: alt }))
              : h("span", { class: "thumb none" }, said(alt, 3)),
            h("span", { class: "activation", "aria-hidden": "true" }, score(value)),
          ),
          beside?.(item, alt),
        )
      }),
  )
}

/** The captions among the items; `beside` makes what stands after a caption. */
export function foundCaptions(
  run: Run,
  items: readonly Found[],
  beside?: (item: ItemId, caption: string) => Child,
): HTMLElement {
  return h(
    "ol",
    { class: "captions" },
    items
      .filter(({ modality }) => modality === "text")
      .map(({ item, caption, value }) =>
        h(
          "li",
          {},
          h(
            "a",
            { href: itemHref(run, "text", item) },
            said(caption ?? `caption ${item}`, 3),
            h("span", { class: "activation" }, score(value)),
          ),
          beside?.(item, caption ?? ""),
        ),
      ),
  )
}
