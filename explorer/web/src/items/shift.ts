// The statistic of the macro `concept_shift` for some items of one modality against all others of it, computed from the
// files of firings. Definition: docs/definitions.md, "Shift between two sets of items".

import type { Manifest, Run } from "../contract"
import { type MapItems, firings } from "../data"

export interface Shift {
  concept: number
  rateIn: number
  rateOut: number
  energyDifference: number
  /** The smaller of the two levels at which the concept counts as shifted, by energy and by rate. */
  q: number
}

const GROUPS = 20
const LEVEL = 0.1

/**
 * The concepts that fire more on the chosen items than on the others beyond chance, clearest first. `chosen`: one value
 * per item of the map, 1 if it is chosen. from, to: the items of the modality. Concepts that fire less are left out.
 */
export async function shifted(
  manifest: Manifest,
  run: Run,
  { group }: MapItems,
  chosen: Uint8Array,
  from: number,
  to: number,
): Promise<Shift[]> {
  const sizes = { a: new Float64Array(GROUPS), b: new Float64Array(GROUPS) }
  for (let item = from; item < to; item++) (chosen[item] ? sizes.a : sizes.b)[group[item] as number]!++
  const own = [...Array(GROUPS).keys()].filter((g) => sizes.a[g]! + sizes.b[g]! > 0)
  const found: { concept: number; rate: Tested; energy: Tested }[] = []
  for (let concept = 0; concept < run.concepts; concept++) {
    const { item, activation } = await firings(manifest, run, concept)
    const sums = { a: sums0(), b: sums0() }
    let count = 0
    for (let at = 0; at < item.length; at++) {
      const where = item[at] as number
      if (where < from || where >= to) continue
      count++
      const side = chosen[where] ? sums.a : sums.b
      const g = group[where] as number
      side.fired[g]!++
      side.energy[g]! += activation[at] as number
    }
    if (count < manifest.definitions.min_firings) continue
    found.push({
      concept,
      rate: tested(sums.a.fired, sums.b.fired, sizes, own),
      energy: tested(sums.a.energy, sums.b.energy, sizes, own),
    })
  }
  const rateQ = adjusted(found.map(({ rate }) => rate.p))
  const energyQ = adjusted(found.map(({ energy }) => energy.p))
  return found
    .map(({ concept, rate, energy }, at) => ({
      concept,
      rateIn: rate.a,
      rateOut: rate.b,
      energyDifference: energy.a - energy.b,
      q: Math.min(rateQ[at] as number, energyQ[at] as number),
      p: Math.min(rate.p, energy.p),
    }))
    .filter(({ q, energyDifference }) => q <= LEVEL && energyDifference > 0)
    .sort((one, other) => one.q - other.q || one.p - other.p || one.concept - other.concept)
}

/** The same as a statement in SQL, for the live explorer. */
export function shiftQuery(run: Run, modality: "image" | "text", ids: readonly number[]): string {
  const [table, column] = modality === "image" ? ["images", "image_id"] : ["pairs", "pair_id"]
  const literal = (text: string) => `'${text.replaceAll("'", "''")}'`
  return (
    `FROM concept_shift(${literal(run.model)}, ${literal(run.sae)}, ${run.seed}, '${modality}',\n` +
    `  [${ids.join(", ")}],\n` +
    `  (SELECT list(${column}) FROM ${table} WHERE ${column} NOT IN (${ids.join(", ")})))\n` +
    "WHERE shifted AND energy_difference > 0"
  )
}

interface Tested {
  a: number
  b: number
  p: number
}

function sums0() {
  return { fired: new Float64Array(GROUPS), energy: new Float64Array(GROUPS) }
}

/** Means of two sets and the probability of a difference as large by chance: jackknife over groups of images. */
function tested(
  a: Float64Array,
  b: Float64Array,
  sizes: { a: Float64Array; b: Float64Array },
  own: readonly number[],
): Tested {
  const total = (values: Float64Array) => values.reduce((sum, value) => sum + value, 0)
  const [sumA, sumB, countA, countB] = [total(a), total(b), total(sizes.a), total(sizes.b)]
  const means = { a: sumA / countA, b: sumB / countB }
  const left = own.map((g) => {
    const [restA, restB] = [countA - sizes.a[g]!, countB - sizes.b[g]!]
    return restA > 0 && restB > 0 ? (sumA - a[g]!) / restA - (sumB - b[g]!) / restB : NaN
  })
  const mean = left.reduce((sum, value) => sum + value, 0) / left.length
  const variance = left.reduce((sum, value) => sum + (value - mean) ** 2, 0) / left.length
  const sd = left.length > 1 ? Math.sqrt((left.length - 1) * variance) : NaN
  return { ...means, p: sd > 0 ? probability((means.a - means.b) / sd, Math.max(left.length - 1, 1)) : 1 }
}

/** The probability of a value of Student's distribution as far from 0 (storage/sql/definitions.sql has the same). */
function probability(value: number, df: number): number {
  const z = ((8 * df + 1) / (8 * df + 3)) * Math.sqrt(df * Math.log(1 + (value * value) / df))
  const t = 1 / (1 + z / Math.sqrt(8))
  const series = [
    1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587, -0.82215223, 0.17087277,
  ]
  const sum = series.reduceRight((rest, factor) => factor + t * rest, 0)
  return t * Math.exp((-z * z) / 2 - 1.26551223 + t * sum)
}

/** The smallest level at which each test counts, by Benjamini and Hochberg. */
function adjusted(p: readonly number[]): number[] {
  const order = [...p.keys()].sort((a, b) => (p[a] as number) - (p[b] as number) || a - b)
  const q = new Array<number>(p.length).fill(1)
  let least = Infinity
  for (let rank = order.length; rank > 0; rank--) {
    const at = order[rank - 1] as number
    least = Math.min(least, ((p[at] as number) * p.length) / rank)
    q[at] = least
  }
  return q
}
