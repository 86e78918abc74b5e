// Links to the page of a pair, and the data of its page: from published files or from the live server.

import type { ItemId, PairLedger, Run } from "../contract"
import * as data from "../data"
import { h } from "../dom"
import { href } from "../route"
import { type Ledger, cosineLeft, energyIn, itemOf, ledgerOf, randomSets } from "./ledger"
import { ownPicture } from "./own"

const DRAWS = 20 // random sets, as many as the server draws

export type Side = ItemId | "own"
export type Codes = PairLedger["codes"]

/** The two sides that an address states. `text` is the caption of the reader's own. */
export interface Asked {
  image: Side
  caption: Side
  text: string
}

/** A pair without some concepts, beside random sets of as much energy. */
export interface Left {
  ledger: Ledger
  cosine: number
  energy: number
  random: { cosine: readonly number[]; inner: readonly number[] } | null
}

export interface Pair {
  ledger: Ledger
  codes: Codes
  /** What is left without some concepts, where the page can compute it. */
  left: ((out: ReadonlySet<number>) => Left) | null
}

/** The address of a pair's page. */
export function pairHref(run: Run, image: Side, caption: Side, params: Record<string, string> = {}): string {
  return href({ view: "pair", argument: `${image},${caption}`, run: run.key, params })
}

/** A link to the page of a pair. `what` completes its name for screen readers, where several stand on one page. */
export function pairLink(run: Run, image: Side, caption: Side, what: string, params: Record<string, string> = {}) {
  return h(
    "a",
    { class: "why", href: pairHref(run, image, caption, params) },
    "Why do they match?",
    h("span", { class: "visually-hidden" }, ` ${what}`),
  )
}

/** The sides in an argument such as "12,34" or "own,34"; null for another one. */
export function sidesOf(argument: string, text: string): Asked | null {
  const [, image, caption] = /^(\d+|own),(\d+|own)$/.exec(argument) ?? []
  if (image === undefined || caption === undefined) return null
  const side = (given: string): Side => (given === "own" ? "own" : Number(given))
  return { image: side(image), caption: side(caption), text }
}

/** The pair from published files: an image with one of its own captions. null for other pairs. */
export async function published(run: Run, { image, caption }: Asked): Promise<Pair | null> {
  if (image === "own" || caption === "own") return null
  const text = await data.text(caption)
  if (text?.image !== image) return null
  const [products, codesX, codesY, D] = await Promise.all([
    data.pairData(run, caption, image),
    data.codes(run, "image", image),
    data.codes(run, "text", caption),
    data.dictionary(run),
  ])
  if (!products || !codesX || !codesY) return null
  const { similarity, on_image, on_text } = products.text
  const x = itemOf(codesX, products.image, on_text)
  const y = itemOf(codesY, products.text, on_image)
  const left = (out: ReadonlySet<number>): Left => {
    const sets = randomSets(x, y, out, DRAWS)
    return {
      ledger: ledgerOf(D, similarity, x, y, out),
      cosine: cosineLeft(D, similarity, x, y, out),
      energy: energyIn(x, out) + energyIn(y, out),
      random: {
        cosine: sets.map((set) => cosineLeft(D, similarity, x, y, set)),
        inner: sets.map((set) => ledgerOf(D, similarity, x, y, set).similarity),
      },
    }
  }
  const whole = ledgerOf(D, similarity, x, y, new Set())
  return { ledger: { ...whole, similarity }, codes: { image: codesX, text: codesY }, left }
}

/** The pair by the live server. */
export async function answered(
  run: Run,
  asked: Asked,
  without: readonly number[],
  ranks: boolean,
  signal: AbortSignal,
): Promise<PairLedger> {
  const picture = asked.image === "own" ? ownPicture() : asked.image
  if (picture === null) throw new data.DataError("Choose the picture again: it is not part of the page's address.")
  const caption = asked.caption === "own" ? asked.text : asked.caption
  return data.pair(run, picture, caption, without, ranks, signal)
}
