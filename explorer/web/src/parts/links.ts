// Finds what corresponds to a concept in another SAE: its match in another seed, its partner in another model.

import type { ConceptDetail, Manifest, Run } from "../contract"
import { detail } from "../data"
import type { Dictionary } from "./ledger"

export interface Counterpart {
  concept: number
  /** Cosine of the match or of the nearest direction, or correlation of the partner's codes. */
  likeness: number
  kind: "match" | "partner" | "nearest"
}

/**
 * The counterpart of a concept in another SAE; null when there is none. Seeds of one setting have matches; models have
 * partners in the same setting and seed: the one of the modality in which the codes correlate most.
 */
export async function matchOf(manifest: Manifest, from: Run, to: Run, concept: number): Promise<Counterpart | null> {
  if (from.key === to.key) return { concept, likeness: 1, kind: "match" }
  const own = await detail(manifest, from, concept)
  return own ? counterpart(own, to.key) : null
}

/** The counterpart that a concept's details state for another SAE. */
export function counterpart(own: ConceptDetail, key: string): Counterpart | null {
  const match = own.matches.find((one) => one.key === key)
  if (match) return { concept: match.concept, likeness: match.cosine, kind: "match" }
  const [best] = (own.partners ?? []).filter((one) => one.key === key).sort((a, b) => b.correlation - a.correlation)
  return best ? { concept: best.concept, likeness: best.correlation, kind: "partner" } : null
}

/** The concept of another dictionary of the same model whose direction has the largest cosine with a concept's. */
export function nearest(from: Dictionary, concept: number, to: Dictionary): Counterpart | null {
  const { rows, dim } = from
  let best: Counterpart | null = null
  for (let other = 0; other < to.concepts; other++) {
    let sum = 0
    for (let at = 0; at < dim; at++) sum += (rows[concept * dim + at] as number) * (to.rows[other * dim + at] as number)
    if (!best || sum > best.likeness) best = { concept: other, likeness: sum, kind: "nearest" }
  }
  return best
}
