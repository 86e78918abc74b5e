// Turns a run's numbers into radii (by default, of energy) and edges (by bridge).

import type { Bridges } from "../contract"
import type { Edge } from "./drawing"

export const SCORES = {
  bridge: "bridge",
  covariance_bridge: "covariance",
  correlation_bridge: "correlation",
} as const
export type Score = keyof typeof SCORES

const STRONGEST_OF_SELECTED = 40
const STRONGEST_OF_PICKED = 150

/** Row numbers of bridges, sorted by the absolute value of a score, largest first. */
export interface Ranking {
  score: Score
  of: Bridges
  rows: number[]
}

/**
 * Radii in pixels. Area is proportional to the value, by default energy, and all dots are smaller when there are more
 * concepts. Few concepts hold most of the energy, so the 95th percentile sets the scale. Radii are limited to 1.8 times the radius at that
 * percentile, and none is too small to click.
 */
export function radii(values: readonly (number | null)[]): number[] {
  const sizes = values.map((value) => Math.abs(value ?? 0))
  const alive = sizes.filter((value) => value > 0).sort((a, b) => a - b)
  const high = alive[Math.floor(0.95 * alive.length)] ?? 1
  const most = Math.max(4.5, Math.min(15, 200 / Math.sqrt(Math.max(alive.length, 1))))
  return sizes.map((value) => {
    const radius = most * Math.sqrt(value / high)
    return Math.max(most / 4, 1.5, Math.min(1.8 * most, radius))
  })
}

/** Rows of the bridges by |score|, largest first, without bridges of a concept with itself, which have no line. */
export function ranking(bridges: Bridges, score: Score): number[] {
  const values = bridges[score]
  const rows = [...values.keys()].filter((row) => bridges.image_concept[row] !== bridges.text_concept[row])
  return rows.sort((a, b) => Math.abs(values[b] ?? 0) - Math.abs(values[a] ?? 0))
}

/** The first `shown` bridges of a ranking, without those of concepts that do not pass the filters. */
export function wholeMap(ranked: Ranking, shown: number, passing: Uint8Array): Edge[] {
  return edges(ranked, ranked.rows.slice(0, shown), passing)
}

/** The strongest bridges of a concept, without those to concepts that do not pass the filters. */
export function ofConcept(ranked: Ranking, concept: number, passing: Uint8Array): Edge[] {
  return edges(ranked, ownRows(ranked.of, ranked.rows, concept).slice(0, STRONGEST_OF_SELECTED), passing)
}

/** Rows as edges of weight sqrt(|score| / |score of the first row|), between concepts that pass the filters. */
function edges({ of, score }: Ranking, rows: readonly number[], passing: Uint8Array): Edge[] {
  const size = (row: number | undefined) => Math.abs((row === undefined ? null : of[score][row]) ?? 0)
  const largest = size(rows[0]) || 1
  return rows
    .map((row) => ({
      from: of.image_concept[row] as number,
      to: of.text_concept[row] as number,
      weight: Math.sqrt(size(row) / largest),
    }))
    .filter(({ from, to }) => passing[from] === 1 && passing[to] === 1)
}

/** Rows of a ranking with a concept on either side. */
export function ownRows(bridges: Bridges, ranked: readonly number[], concept: number): number[] {
  return ranked.filter((row) => bridges.image_concept[row] === concept || bridges.text_concept[row] === concept)
}

/** The number of bridges at a position in [0, 1] of the slider, on a logarithmic scale. */
export function shownAt(position: number, total: number): number {
  return position <= 0 ? 0 : Math.round(Math.exp(position * Math.log(Math.max(total, 1))))
}

/** The position of the slider for a number of bridges. */
export function positionOf(shown: number, total: number): number {
  return shown <= 0 || total <= 1 ? (shown > 0 ? 1 : 0) : Math.min(1, Math.log(shown) / Math.log(total))
}

/** The strongest bridges of several concepts, without those to concepts that do not pass the filters. */
export function ofConcepts(ranked: Ranking, picked: ReadonlySet<number>, passing: Uint8Array): Edge[] {
  const { of, rows } = ranked
  const own = rows.filter((row) => picked.has(of.image_concept[row] ?? -1) || picked.has(of.text_concept[row] ?? -1))
  return edges(ranked, own.slice(0, STRONGEST_OF_PICKED), passing)
}
