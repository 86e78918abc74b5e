// The concepts that reconstruct an item, each with its share.

import type { Concepts } from "../contract"
import { detail } from "../data"
import { h } from "../dom"
import { number, percent } from "../format"
import type { Page } from "../page"
import { conceptLink } from "./concept"
import { empty } from "./notice"
import { bar, pictureStrip } from "./pictures"

export interface Coded {
  concept: number
  activation: number
  share: number
}

/** A list of concepts, largest share first, and at its end the share of the decoder's bias. */
export function codeList(page: Page, concepts: Concepts, coded: readonly Coded[], bias: number): HTMLElement {
  if (!coded.length) return empty("No concept fires on it", "The reconstruction is the decoder's bias alone.")
  const order = [...coded].sort((a, b) => b.share - a.share)
  const most = Math.max(...order.map(({ share }) => Math.abs(share)), Math.abs(bias), Number.MIN_VALUE)
  return h(
    "div",
    { class: "codes" },
    h(
      "ol",
      {},
      order.map(({ concept, activation, share }) =>
        h(
          "li",
          {},
          h("div", { class: "code-name" }, conceptLink(page.run, concepts, concept)),
          page.manifest.items &&
            pictureStrip(async () => (await detail(page.manifest, page.run, concept))?.images ?? [], 5),
          h(
            "span",
            { class: "code-share" },
            percent(share),
            h("span", { class: "muted" }, ` at ${number(activation)}`),
          ),
          bar(Math.abs(share) / most, share < 0 ? "negative" : ""),
        ),
      ),
      bias !== 0 &&
        h(
          "li",
          { class: "bias" },
          h("div", { class: "code-name" }, "the decoder's bias, the same for every item"),
          h("span", { class: "code-share" }, percent(bias)),
          bar(Math.abs(bias) / most, bias < 0 ? "negative" : "bias"),
        ),
    ),
    h(
      "p",
      { class: "muted small" },
      "Shares of the reconstruction's squared length: activation × ⟨direction, reconstruction⟩. With the bias they add up " +
        "to 100%. A concept with a negative share points away from the reconstruction.",
    ),
  )
}
