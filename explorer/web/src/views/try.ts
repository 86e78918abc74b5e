// Live only: encodes a caption or an image of the reader's own, and shows the concepts that it activates and the nearest
// items of the study.

import type { Concepts, Encoded } from "../contract"
import * as data from "../data"
import { clip, h } from "../dom"
import { HEADING, type Page } from "../page"
import { codeList } from "../parts/codes"
import { foundCaptions, foundImages } from "../parts/found"
import { failure, loading } from "../parts/notice"
import { keepPicture } from "../parts/own"
import { pairLink } from "../parts/pairs"
import { note } from "../route"

/** Draw the form; a caption in the address is encoded at once. */
export async function tryView(page: Page): Promise<void> {
  const { route, root, signal } = page
  const answer = h("div", { class: "answer", role: "status" })
  const preview = h("div", { class: "preview" })
  const caption = h("textarea", { id: "caption", rows: 2, maxlength: 2000, placeholder: "a red heart with an arrow" })
  caption.value = route.params.text ?? ""
  const file = h("input", { type: "file", accept: "image/*", id: "image-file", class: "visually-hidden" })
  const drop = h(
    "label",
    { class: "drop", for: "image-file" },
    h("span", {}, "Drop an image here, paste one, or ", h("span", { class: "as-link" }, "choose a file")),
  )
  let asking: AbortController | null = null

  const attempt = async (query: string | File) => {
    asking?.abort()
    const mine = (asking = new AbortController())
    const either = AbortSignal.any([mine.signal, signal])
    answer.replaceChildren(loading("its concepts"))
    try {
      const [encoded, concepts] = await Promise.all([data.encode(page.run, query, either), data.concepts(page.run)])
      if (!either.aborted)
        answer.replaceChildren(...result(page, concepts, encoded, typeof query === "string" ? query : ""))
    } catch (error) {
      if (!either.aborted) answer.replaceChildren(failure(error))
    }
  }
  const tryText = () => {
    const text = caption.value.trim()
    if (!text) return
    preview.replaceChildren()
    note({ text })
    void attempt(text)
  }
  const tryFile = (given: File | null | undefined) => {
    if (!given) return
    if (!given.type.startsWith("image/")) {
      answer.replaceChildren(failure(new data.DataError(`${clip(given.name, 80)} is not an image.`)))
      return
    }
    note({ text: "" })
    keepPicture(given)
    const address = URL.createObjectURL(given)
    const shown = h("img", { src: address, alt: `Your image, ${clip(given.name, 80)}` })
    shown.addEventListener("load", () => URL.revokeObjectURL(address))
    preview.replaceChildren(
      shown,
      h("p", { class: "muted small" }, "An image stays on this machine and is not part of the page's address."),
    )
    void attempt(given)
  }

  file.addEventListener("change", () => tryFile(file.files?.[0]))
  for (const name of ["dragenter", "dragover"] as const) {
    drop.addEventListener(name, (event) => {
      event.preventDefault()
      drop.classList.add("over")
    })
  }
  for (const name of ["dragleave", "drop"] as const) drop.addEventListener(name, () => drop.classList.remove("over"))
  drop.addEventListener("drop", (event) => {
    event.preventDefault()
    tryFile(event.dataTransfer?.files[0])
  })
  document.addEventListener("paste", (event) => tryFile([...(event.clipboardData?.files ?? [])][0]), { signal })
  caption.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey) return
    event.preventDefault()
    tryText()
  })
  root.replaceChildren(
    h("h1", { id: HEADING, tabindex: -1 }, "Try your own"),
    h(
      "p",
      { class: "lead" },
      `Encode a caption or an image with ${page.run.model}, and see the concepts of ${page.run.sae}, seed ${page.run.seed}, that it activates, and the nearest items of the study.`,
    ),
    h(
      "div",
      { class: "try-form" },
      h(
        "div",
        { class: "try-caption" },
        h("label", { for: "caption" }, "Caption"),
        caption,
        h("button", { class: "button primary", type: "button", onclick: tryText }, "Try this caption"),
      ),
      h("div", {}, file, drop),
    ),
    preview,
    answer,
  )
  if (route.params.text) tryText()
}

function result(page: Page, concepts: Concepts, encoded: Encoded, given: string): HTMLElement[] {
  const { run } = page
  const found = encoded.nearest.map(({ cosine, ...near }) => ({ ...near, value: cosine }))
  const images = foundImages(
    run,
    found,
    "cosine",
    (item, alt) =>
      encoded.modality === "text" && pairLink(run, item, "own", `Your caption and ${alt}`, { text: given }),
  )
  const captions = foundCaptions(
    run,
    found,
    (item, caption) =>
      encoded.modality === "image" && pairLink(run, "own", item, `Your image and ${clip(caption, 80)}`),
  )
  return [
    h(
      "section",
      { class: "block" },
      h("h2", {}, "Concepts it activates"),
      codeList(page, concepts, encoded.concepts, encoded.bias),
    ),
    h(
      "section",
      { class: "block" },
      h("h2", {}, "Nearest in the study"),
      h(
        "div",
        { class: "two" },
        h("div", {}, h("h3", {}, "Images"), images),
        h("div", {}, h("h3", {}, "Captions"), captions),
      ),
      h(
        "p",
        { class: "muted small" },
        "Numbers are cosines of embeddings. Cosines across the modalities are lower for a model that separates the modalities.",
      ),
    ),
  ]
}
