// Builds elements from data. Data is always set as text: no markup is parsed and no style attribute is set, as the
// page's policy demands.

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

/** Text from the data, isolated from the line around it, with a direction of its own. */
export function said(text: string, lines?: 1 | 2 | 3 | 6): HTMLElement {
  return h("bdi", { dir: "auto", class: lines ? `said clamp clamp-${lines}` : "said" }, text)
}

/** The first characters of a long text, for attributes, which style cannot clamp. */
export function clip(text: string, length = 160): string {
  return text.length <= length ? text : `${text.slice(0, length)}…`
}

/** Set style properties from script, which the policy allows; it forbids style attributes. */
export function styled<E extends HTMLElement | SVGElement>(element: E, style: Record<string, string>): E {
  for (const [name, value] of Object.entries(style)) element.style.setProperty(name, value)
  return element
}
