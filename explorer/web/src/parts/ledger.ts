// The pair ledger, computed in the page from published codes, inner products and directions.
// Definition: docs/definitions.md, "Pair ledger".

import type { PairItem } from "../contract"

/** The rows of a dictionary file: concepts, then the decoder's bias, the mean of images, the mean of captions. */
export interface Dictionary {
  rows: Float32Array
  dim: number
  concepts: number
}

export interface Row {
  image_concept: number
  text_concept: number
  contribution: number
}

/** A similarity as the sum of `rows` and of the other `terms`; `terms.concepts` is the sum of `rows`. */
export interface Ledger {
  similarity: number
  terms: Record<string, number>
  rows: Row[]
}

/** One item: the concepts that fire on it, and the inner products of its embedding. */
export interface Item {
  concept: readonly number[]
  activation: readonly number[]
  own: Float64Array
  /** With the directions of the other item's concepts. */
  across: Float64Array
  bias: number
  mean: number
}

const FULL = 32767

/** Numbers of a dictionary file: float16, little-endian. */
export function halves(buffer: ArrayBuffer): Float32Array {
  const view = new DataView(buffer)
  const out = new Float32Array(buffer.byteLength / 2)
  for (let at = 0; at < out.length; at++) {
    const bits = view.getUint16(at * 2, true)
    const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023]
    out[at] = sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024))
  }
  return out
}

/** Inner products that are packed as 16-bit integers in base64. */
export function unpacked(text: string): Float64Array {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))
  const view = new DataView(bytes.buffer)
  return Float64Array.from({ length: bytes.length / 2 }, (_, at) => view.getInt16(at * 2, true) / FULL)
}

export function itemOf(
  codes: { concept: readonly number[]; activation: readonly number[] },
  products: PairItem,
  across: string,
): Item {
  const { bias, mean } = products
  const { concept, activation } = codes
  return { concept, activation, own: unpacked(products.own), across: unpacked(across), bias, mean }
}

export function inner({ rows, dim }: Dictionary, a: number, b: number): number {
  let sum = 0
  for (let at = 0; at < dim; at++) sum += (rows[a * dim + at] as number) * (rows[b * dim + at] as number)
  return sum
}

/** The ledger of what is left of a pair without some concepts, which may be none; its similarity is then an inner product. */
export function ledgerOf(D: Dictionary, similarity: number, x: Item, y: Item, out: ReadonlySet<number>): Ledger {
  const [b, meanImage, meanText] = [D.concepts, D.concepts + 1, D.concepts + 2]
  const [whole, left] = [parts(D, x, y, new Set()), parts(D, x, y, out)]
  const at = (item: Item, dot: Float64Array, set: ReadonlySet<number>) =>
    item.concept.reduce(
      (sum, concept, n) => sum + (set.has(concept) ? 0 : (item.activation[n] ?? 0) * (dot[n] ?? 0)),
      0,
    )
  const none = new Set<number>()
  // Inner products of the residuals, e = x - reconstruction, with what the other item has.
  const hatImage = (row: number) => decoded(D, x, none, row) + inner(D, b, row) + inner(D, meanImage, row)
  const hatText = (row: number) => decoded(D, y, none, row) + inner(D, b, row) + inner(D, meanText, row)
  const onText = new Float64Array(y.concept.length)
  y.concept.forEach((concept, n) => (onText[n] = (x.across[n] ?? 0) - hatImage(concept)))
  const onImage = new Float64Array(x.concept.length)
  x.concept.forEach((concept, n) => (onImage[n] = (y.across[n] ?? 0) - hatText(concept)))
  const offsetImage = x.bias + x.mean - hatImage(b) - hatImage(meanText)
  const offsetText = y.bias + y.mean - hatText(b) - hatText(meanImage)
  const hats = Object.values(whole.terms).reduce((sum, value) => sum + value, 0)
  const imageResidual = at(y, onText, none) + offsetImage
  const textResidual = at(x, onImage, none) + offsetText
  const terms: Record<string, number> = {
    ...left.terms,
    image_residual: at(y, onText, out) + offsetImage,
    text_residual: at(x, onImage, out) + offsetText,
    residuals: similarity - hats - imageResidual - textResidual,
  }
  return { similarity: total(terms), terms, rows: left.rows }
}

/** The sum of all terms of a ledger. */
export function total(terms: Record<string, number>): number {
  return Object.values(terms).reduce((sum, value) => sum + value, 0)
}

/** The cosine of what is left of a pair without some concepts. */
export function cosineLeft(D: Dictionary, similarity: number, x: Item, y: Item, out: ReadonlySet<number>): number {
  const length = Math.sqrt(squareLeft(D, x, out) * squareLeft(D, y, out))
  return length > 1e-9 ? ledgerOf(D, similarity, x, y, out).similarity / length : 0
}

function squareLeft(D: Dictionary, item: Item, out: ReadonlySet<number>): number {
  const gone = item.concept.flatMap((concept, n) => (out.has(concept) ? [n] : []))
  const z = (n: number) => item.activation[n] ?? 0
  let square = 1
  for (const n of gone) {
    square -= 2 * z(n) * (item.own[n] ?? 0)
    for (const m of gone) square += z(n) * z(m) * inner(D, item.concept[n] as number, item.concept[m] as number)
  }
  return Math.max(0, square)
}

/** The inner product of an item's decoded code with a row of the dictionary. */
function decoded(D: Dictionary, item: Item, out: ReadonlySet<number>, row: number): number {
  return item.concept.reduce(
    (sum, concept, n) => sum + (out.has(concept) ? 0 : (item.activation[n] ?? 0) * inner(D, concept, row)),
    0,
  )
}

function parts(D: Dictionary, x: Item, y: Item, out: ReadonlySet<number>): Pick<Ledger, "terms" | "rows"> {
  const [b, meanImage, meanText] = [D.concepts, D.concepts + 1, D.concepts + 2]
  const rows: Row[] = []
  x.concept.forEach((image_concept, n) => {
    if (out.has(image_concept)) return
    y.concept.forEach((text_concept, m) => {
      if (out.has(text_concept)) return
      const contribution = (x.activation[n] ?? 0) * (y.activation[m] ?? 0) * inner(D, image_concept, text_concept)
      rows.push({ image_concept, text_concept, contribution })
    })
  })
  const terms: Record<string, number> = {
    concepts: rows.reduce((sum, { contribution }) => sum + contribution, 0),
    text_on_bias: decoded(D, y, out, b),
    image_on_bias: decoded(D, x, out, b),
    bias: inner(D, b, b),
  }
  if (inner(D, meanImage, meanImage) > 0 || inner(D, meanText, meanText) > 0)
    Object.assign(terms, {
      text_on_mean: decoded(D, y, out, meanImage),
      image_on_mean: decoded(D, x, out, meanText),
      bias_on_means: inner(D, b, meanText) + inner(D, meanImage, b),
      means: inner(D, meanImage, meanText),
    })
  return { terms, rows: rows.sort((a, c) => Math.abs(c.contribution) - Math.abs(a.contribution)) }
}

/** The sum of the activations of some concepts in an item. */
export function energyIn(item: Pick<Item, "concept" | "activation">, set: ReadonlySet<number>): number {
  return item.concept.reduce((sum, concept, n) => sum + (set.has(concept) ? (item.activation[n] ?? 0) : 0), 0)
}

/**
 * Random sets of concepts that hold at most as much energy of the two items as the given ones do, drawn as
 * sae/ledger.py draws them. The generator is seeded, so that an address shows the same numbers at every visit.
 */
export function randomSets(x: Item, y: Item, out: ReadonlySet<number>, draws: number): Set<number>[] {
  const random = generator(out.size)
  const firing = [...new Set([...x.concept, ...y.concept])].sort((a, b) => a - b)
  const energy = new Map(
    firing.map((concept) => [concept, energyIn(x, new Set([concept])) + energyIn(y, new Set([concept]))]),
  )
  return Array.from({ length: draws }, () => {
    let left = energyIn(x, out) + energyIn(y, out)
    const set = new Set<number>()
    for (let at = firing.length - 1; at > 0; at--) {
      const other = Math.floor(random() * (at + 1))
      const [a, b] = [firing[at] as number, firing[other] as number]
      firing[at] = b
      firing[other] = a
    }
    for (const concept of firing) {
      const own = energy.get(concept) ?? 0
      if (own > left + 1e-9) continue
      set.add(concept)
      left -= own
    }
    return set
  })
}

/** Numbers in [0, 1) from a seed: mulberry32. */
function generator(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}
