// Builds elements from data. Data is always set as text and never parsed as markup. No style attribute is set, because
// the page's Content-Security-Policy forbids it.

export type Child = Node | string | number | null | undefined | false | readonly Child[]
type Listeners = { [K in keyof HTMLElementEventMap as `on${K}`]?: (event: HTMLElementEventMap[K]) => void }
type Props = Listeners & { [attribute: string]: unknown }

const SVG = "http://www.w3.org/2000/svg"

function put(element: Element, props: Props, children: readonly Child[]): void {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value as EventListener)
    else element.setAttribute(name, value === true ? "" : String(value))
  }
  add(element, children)
}

function add(element: Element, children: readonly Child[]): void {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue
    if (Array.isArray(child)) add(element, child)
    else element.append(child instanceof Node ? child : String(child))
  }
}

/** An HTML element; strings among the children become text nodes. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag)
  put(element, props, children)
  return element
}

/** An SVG element. */
export function s<K extends keyof SVGElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  const element = document.createElementNS(SVG, tag)
  put(element, props, children)
  return element
}

/** Text from the data in a bdi element: its writing direction does not affect the line around it. */
export function said(text: string, lines?: 1 | 2 | 3 | 6): HTMLElement {
  return h("bdi", { dir: "auto", class: lines ? `said clamp clamp-${lines}` : "said" }, text)
}

/** The first characters of a long text, for attributes: CSS cannot shorten them. */
export function clip(text: string, length = 160): string {
  return text.length <= length ? text : `${text.slice(0, length)}…`
}

/** Set style properties from script. The Content-Security-Policy allows this, but not style attributes in markup. */
export function styled<E extends HTMLElement | SVGElement>(element: E, style: Record<string, string>): E {
  for (const [name, value] of Object.entries(style)) element.style.setProperty(name, value)
  return element
}
