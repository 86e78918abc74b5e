// Finds the match of a concept in another run.

import type { Manifest, Run } from "../contract"
import { detail } from "../data"

/** The match of a concept in another run; null when the two are not seeds of one setting. */
export async function matchOf(manifest: Manifest, from: Run, to: Run, concept: number): Promise<number | null> {
  if (from.key === to.key) return concept
  const own = await detail(manifest, from, concept)
  return own?.matches.find(({ key }) => key === to.key)?.concept ?? null
}
