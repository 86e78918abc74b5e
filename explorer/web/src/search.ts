// Search over concept names, their words, and captions: plain containment of every word, best place first.

import type { CaptionSearch, Concepts, Words } from "./contract"

/** The words that are asked for, in lower case. */
export function terms(query: string): string[] {
  return query.toLocaleLowerCase().split(/\s+/).filter(Boolean)
}

/** Concepts whose name, words or number hold every term: in the name first, then by energy. */
export function findConcepts(query: string, concepts: Concepts, words: Words): number[] {
  const asked = terms(query)
  if (!asked.length) return []
  const found: { concept: number; named: boolean }[] = []
  concepts.name.forEach((name, concept) => {
    const lower = name.toLocaleLowerCase()
    const all = `${lower} ${(words[concept] ?? "").toLocaleLowerCase()}`
    const holds = (term: string) => all.includes(term) || term === String(concept) || term === `#${concept}`
    if (asked.every(holds)) found.push({ concept, named: asked.every((term) => lower.includes(term)) })
  })
  const energy = (concept: number) => concepts.energy[concept] ?? 0
  return found
    .sort((a, b) => Number(b.named) - Number(a.named) || energy(b.concept) - energy(a.concept))
    .map(({ concept }) => concept)
}

/** Places in the list of captions that hold every term, shortest caption first. */
export function findCaptions(query: string, captions: CaptionSearch, limit: number): { at: number[]; total: number } {
  const asked = terms(query)
  if (!asked.length) return { at: [], total: 0 }
  const found: number[] = []
  captions.caption.forEach((caption, at) => {
    const lower = caption.toLocaleLowerCase()
    if (asked.every((term) => lower.includes(term))) found.push(at)
  })
  const length = (at: number) => captions.caption[at]?.length ?? 0
  return { at: found.sort((a, b) => length(a) - length(b)).slice(0, limit), total: found.length }
}
