// The name of a concept in every view: its dot, its automatic name, its number.

import { modalityColour, modalityWord } from "../colour"
import type { Concepts, Definitions, Run } from "../contract"
import type { Named } from "../data"
import { clip, h, styled } from "../dom"
import { score } from "../format"
import { href } from "../route"
import { scheme } from "../theme"

/** The label that a user gave to a concept, else its automatic name, or "no name". */
export function nameOf(concepts: Concepts, concept: number): string {
  return concepts.name[concept] || "no name"
}

/** Why a concept has its name, or none, with the score of the name. */
export function aboutName(concepts: Named, concept: number): string {
  const automatic = concepts.automatic?.get(concept)
  if (automatic !== undefined)
    return `Its name is a label that a user gave. The automatic name is ${automatic ? `“${automatic}”` : "none"}.`
  const value = concepts.name_score[concept] ?? null
  const low = concepts.name_score_low[concept] ?? null
  const chance = concepts.name_chance[concept] ?? null
  if (concepts.name[concept]) {
    const origin = "Its name is automatic: words that set its training captions apart"
    if (value === null) return `${origin}. There is no score, since no encoder is available.`
    const other = chance === null ? "" : `; another concept's name reaches ${score(chance)}`
    return `${origin}. On held-out items they have a score of ${score(value)} (.5 is chance${other}).`
  }
  if (value === null)
    return "It has no name: no words set its training captions apart, or it fires on none or all of the held-out items."
  if (low === null) return `It has no name: it fires on too few held-out items to trust the score ${score(value)}.`
  return `It has no name: the score ${score(value)} of its words on held-out items may be chance (from ${score(low)}).`
}

/** A dot in the colour of a modality score. */
export function dot(value: number | null): HTMLElement {
  return styled(h("span", { class: "dot", "aria-hidden": "true" }), {
    "background-color": modalityColour(value, scheme()),
  })
}

/** Dot, name and number, without a link. */
export function conceptText(concepts: Concepts, concept: number): HTMLElement {
  return h(
    "span",
    { class: "concept-text" },
    dot(concepts.modality_score[concept] ?? null),
    h("bdi", { class: "concept-name", dir: "auto" }, nameOf(concepts, concept)),
    h("span", { class: "id" }, `#${concept}`),
  )
}

export function conceptHref(run: Run, concept: number): string {
  return href({ view: "concept", argument: String(concept), run: run.key })
}

/** A link to a concept's page. */
export function conceptLink(run: Run, concepts: Concepts, concept: number): HTMLAnchorElement {
  const name = clip(nameOf(concepts, concept), 300)
  return h("a", { class: "concept-link", href: conceptHref(run, concept), title: name }, conceptText(concepts, concept))
}

/** A bar with a mark at the modality score, from text (0) to image (1). */
export function modalityBar(value: number | null, definitions: Definitions): HTMLElement {
  const marker = styled(h("span", { class: "modality-mark" }), { left: `${(value ?? 0.5) * 100}%` })
  return h(
    "span",
    {
      class: "modality",
      role: "img",
      "aria-label": `modality score ${score(value)}: ${modalityWord(value, definitions)}`,
    },
    h("span", { class: "modality-track" }),
    value !== null && marker,
  )
}
