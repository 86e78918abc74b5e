// Published sites only: links to the published SAEs, tables of statistics and tables of items.

import { h } from "../dom"
import { counted } from "../format"
import { HEADING, type Page } from "../page"

const FOLDERS: Record<string, readonly [string, string]> = {
  statistics: [
    "Statistics",
    "Every table of the run as Parquet. The SQL of a figure names the views, which have the names of these files.",
  ],
  saes: [
    "SAEs",
    "One folder per SAE: weights (sae.safetensors), settings with the threshold (config.json), and a card.",
  ],
  items: [
    "Items",
    "One table per model: a row per image and caption with its place, thumbnail and strongest concepts.",
  ],
}

/** Draw the list of published files. */
export async function filesView({ manifest, root }: Page): Promise<void> {
  const files = manifest.files ?? []
  root.replaceChildren(
    h("h1", { id: HEADING, tabindex: -1 }, "Files"),
    h("p", { class: "lead" }, "Files that were published with these pages, to download."),
    ...Object.entries(FOLDERS).flatMap(([folder, [title, purpose]]) => {
      const own = files.filter(({ path }) => path.startsWith(`${folder}/`))
      if (!own.length) return []
      return h(
        "section",
        { class: "block" },
        h("h2", {}, title),
        h("p", {}, purpose),
        h("p", { class: "muted small" }, `${counted(own.length, "file")} in `, h("code", {}, `${folder}/`)),
        h(
          "ul",
          { class: "files" },
          own.map(({ path, bytes }) =>
            h(
              "li",
              {},
              h(
                "a",
                { href: path.split("/").map(encodeURIComponent).join("/"), download: path.split("/").at(-1) },
                path.slice(folder.length + 1),
              ),
              h("span", { class: "value muted" }, size(bytes)),
            ),
          ),
        ),
      )
    }),
  )
}

function size(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(1)} MB`
}
