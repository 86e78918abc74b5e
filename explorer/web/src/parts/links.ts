// Following a concept from one run to its match in another.

import type { Manifest, Run } from "../contract"
import { detail } from "../data"

/** The match of a concept in another run; null when the two are not seeds of one setting. */
export async function matchOf(manifest: Manifest, from: Run, to: Run, concept: number): Promise<number | null> {
  if (from.key === to.key) return concept
  const found = await detail(manifest, from, concept)
  return found?.matches.find(({ key }) => key === to.key)?.concept ?? null
}
