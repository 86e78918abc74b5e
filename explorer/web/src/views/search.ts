// All results of a search: concepts, then captions with their images.

import * as data from "../data"
import { h, said } from "../dom"
import { counted } from "../format"
import { HEADING, type Page } from "../page"
import { conceptLink } from "../parts/concept"
import { empty, loading } from "../parts/notice"
import { itemHref, pictureStrip } from "../parts/pictures"
import { findCaptions, findConcepts } from "../search"

const CONCEPTS = 60
const CAPTIONS = 60

/** Draw the results of the query in the address. */
export async function searchView(page: Page): Promise<void> {
  const { manifest, run, route, root, signal } = page
  const query = route.params.q ?? ""
  root.replaceChildren(loading("the results"))
  const [concepts, words, captions] = await Promise.all([
    data.concepts(run),
    data.words(run),
    manifest.items ? data.captions() : null,
  ])
  if (signal.aborted) return
  const title = h("h1", { id: HEADING, tabindex: -1 }, "Search: ", h("bdi", { dir: "auto" }, query))
  const matching = findConcepts(query, concepts, words)
  const texts = captions ? findCaptions(query, captions, CAPTIONS) : { at: [], total: 0 }
  if (!matching.length && !texts.total) {
    root.replaceChildren(
      title,
      empty(
        "No concept and no caption has these words",
        "Search looks for every word in the names and words of this SAE's concepts, and in captions. Try fewer or shorter words.",
      ),
    )
    return
  }
  root.replaceChildren(
    title,
    h(
      "section",
      { class: "block" },
      h("h2", {}, counted(matching.length, "concept")),
      h(
        "ul",
        { class: "found" },
        matching
          .slice(0, CONCEPTS)
          .map((concept) =>
            h(
              "li",
              {},
              conceptLink(run, concepts, concept),
              manifest.items && pictureStrip(async () => (await data.detail(manifest, run, concept))?.images ?? [], 6),
            ),
          ),
      ),
      matching.length > CONCEPTS && h("p", { class: "muted" }, `The ${CONCEPTS} with the most energy are shown.`),
    ),
    h(
      "section",
      { class: "block" },
      h("h2", {}, counted(texts.total, "caption")),
      h(
        "ul",
        { class: "found captions-found" },
        texts.at.map((at) => {
          const id = captions?.id[at] as number
          const owner = async () => {
            const caption = await data.text(id)
            return caption ? [{ item: caption.image, activation: 0 }] : []
          }
          return h(
            "li",
            {},
            pictureStrip(owner, 1),
            h("a", { href: itemHref(run, "text", id) }, said(captions?.caption[at] ?? "", 2)),
          )
        }),
      ),
      texts.total > CAPTIONS && h("p", { class: "muted" }, `The ${CAPTIONS} shortest are shown.`),
    ),
  )
}
