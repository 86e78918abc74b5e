// Finds what corresponds to a concept in another SAE: its match in another seed, its partner in another model.

import type { ConceptDetail, Manifest, Run } from "../contract"
import { detail } from "../data"

export interface Counterpart {
  concept: number
  /** Cosine of the match, or correlation of the partner's codes. */
  likeness: number
  kind: "match" | "partner"
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
