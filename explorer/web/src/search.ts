// Searches names and words of concepts, and captions, for texts that contain every word of a query; best match first.

import type { CaptionSearch, Concepts, Words } from "./contract"

/** The words of a query, in lower case. */
export function terms(query: string): string[] {
  return query.toLocaleLowerCase().split(/\s+/).filter(Boolean)
}

/** Concepts whose name, words or number contain every term: matches in the name first, then by energy. */
export function findConcepts(query: string, concepts: Concepts, words: Words): number[] {
  const wanted = terms(query)
  if (!wanted.length) return []
  const matches: { concept: number; named: boolean }[] = []
  concepts.name.forEach((name, concept) => {
    const lower = name.toLocaleLowerCase()
    const all = `${lower} ${(words[concept] ?? "").toLocaleLowerCase()}`
    const holds = (term: string) => all.includes(term) || term === String(concept) || term === `#${concept}`
    if (wanted.every(holds)) matches.push({ concept, named: wanted.every((term) => lower.includes(term)) })
  })
  const energy = (concept: number) => concepts.energy[concept] ?? 0
  return matches
    .sort((a, b) => Number(b.named) - Number(a.named) || energy(b.concept) - energy(a.concept))
    .map(({ concept }) => concept)
}

/** Indices of captions that contain every term, shortest first, at most `limit`; `total` counts all of them. */
export function findCaptions(query: string, captions: CaptionSearch, limit: number): { at: number[]; total: number } {
  const wanted = terms(query)
  if (!wanted.length) return { at: [], total: 0 }
  const places: number[] = []
  captions.caption.forEach((caption, at) => {
    const lower = caption.toLocaleLowerCase()
    if (wanted.every((term) => lower.includes(term))) places.push(at)
  })
  const length = (at: number) => captions.caption[at]?.length ?? 0
  return { at: places.sort((a, b) => length(a) - length(b)).slice(0, limit), total: places.length }
}
