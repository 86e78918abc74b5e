// The name of a concept in every view: its dot, its automatic name, its number.

import { modalityColour, modalityWord } from "../colour"
import type { Concepts, Definitions, Run } from "../contract"
import { clip, h, styled } from "../dom"
import { score } from "../format"
import { href } from "../route"
import { scheme } from "../theme"

/** The automatic name of a concept, or its number if it has none. */
export function nameOf(concepts: Concepts, concept: number): string {
  return concepts.name[concept] || `concept ${concept}`
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
