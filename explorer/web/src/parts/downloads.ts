// Puts a download beside every table and every chart of a view: CSV for tables, SVG and PNG for charts.

import { h } from "../dom"
import { downloads, save, saveCsv } from "./download"

const STYLES = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "opacity",
  "font-family", "font-size", "font-weight", "text-anchor", "font-variant-numeric"] // prettier-ignore
const SCALE = 2 // pixels of a PNG per pixel of the page

/**
 * Watch an element, and give every table and chart in it its downloads, also those that are drawn later. An element with
 * the attribute `data-download` has its own.
 */
export function watchDownloads(root: HTMLElement): void {
  let waits = false
  const look = () => {
    waits = false
    for (const table of root.querySelectorAll<HTMLTableElement>("table")) {
      const region = table.closest<HTMLElement>(".scroll") ?? table
      if (isOwn(table) || region.nextElementSibling?.classList.contains("downloads")) continue
      region.after(downloads([["CSV", () => saveCsv(tableOf(table), `${nameOf(table)}.csv`)]], "table"))
    }
    for (const chart of root.querySelectorAll<SVGSVGElement>("svg.plot")) {
      if (isOwn(chart) || chart.nextElementSibling?.classList.contains("downloads")) continue
      chart.after(
        downloads(
          [
            ["SVG", () => save(picture(chart), `${nameOf(chart)}.svg`)],
            ["PNG", () => void png(chart)],
          ],
          "chart",
        ),
      )
    }
    for (const image of root.querySelectorAll<HTMLImageElement>('.paper > img[src$=".svg"]')) {
      const frame = image.parentElement as HTMLElement
      if (isOwn(image) || frame.nextElementSibling?.classList.contains("downloads")) continue
      frame.after(
        h(
          "p",
          { class: "downloads" },
          ["svg", "png"].map((kind) => {
            const file = (image.getAttribute("src") ?? "").replace(/svg$/, kind)
            const label = `Download this figure as ${kind.toUpperCase()}`
            return h("a", { href: file, download: file.split("/").at(-1), "aria-label": label }, kind.toUpperCase())
          }),
        ),
      )
    }
  }
  new MutationObserver(() => {
    if (waits) return
    waits = true
    setTimeout(look, 100)
  }).observe(root, { childList: true, subtree: true })
}

function isOwn(element: Element): boolean {
  return element.closest("[data-download]") !== null
}

function nameOf(element: Element): string {
  const heading = [...document.querySelectorAll("h1, h2, h3")]
    .filter((one) => one.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING)
    .at(-1)
  const words = (heading?.textContent ?? "bridgescope").toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")
  return words.slice(0, 60).replaceAll(/^-|-$/g, "") || "bridgescope"
}

function tableOf(table: HTMLTableElement): { columns: string[]; rows: string[][] } {
  const text = (cell: HTMLTableCellElement) => cell.dataset.value ?? cell.innerText.trim().replaceAll("−", "-")
  const [head, ...rows] = [...table.rows].map((row) => [...row.cells].map(text))
  return { columns: head ?? [], rows }
}

/** The chart as a file of its own: with the colours and fonts that the page gives it. */
function picture(chart: SVGSVGElement): Blob {
  const copy = chart.cloneNode(true) as SVGSVGElement
  const originals = [chart, ...chart.querySelectorAll("*")]
  ;[copy, ...copy.querySelectorAll("*")].forEach((element, at) => {
    const style = getComputedStyle(originals[at] as Element)
    for (const name of STYLES) element.setAttribute(name, style.getPropertyValue(name))
    element.removeAttribute("class")
    element.removeAttribute("style")
  })
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg")
  return new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" })
}

async function png(chart: SVGSVGElement): Promise<void> {
  const { width, height } = chart.getBoundingClientRect()
  const address = URL.createObjectURL(picture(chart))
  const drawn = new Image(width * SCALE, height * SCALE)
  drawn.src = address
  await drawn.decode()
  const canvas = document.createElement("canvas")
  canvas.width = Math.round(width * SCALE)
  canvas.height = Math.round(height * SCALE)
  const context = canvas.getContext("2d")
  if (!context) throw new Error("this browser gives no canvas to draw the chart on")
  context.fillStyle = getComputedStyle(document.body).backgroundColor
  context.fillRect(0, 0, canvas.width, canvas.height)
  context.drawImage(drawn, 0, 0, canvas.width, canvas.height)
  URL.revokeObjectURL(address)
  canvas.toBlob((blob) => blob && save(blob, `${nameOf(chart)}.png`), "image/png")
}
