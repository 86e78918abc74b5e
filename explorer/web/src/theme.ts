// Light or dark: the system's choice until the reader makes one, which is then remembered.

import type { Scheme } from "./colour"

const KEY = "bridgescope.scheme"
const system = matchMedia("(prefers-color-scheme: dark)")
const listeners = new Set<() => void>()

function stored(): string | null {
  try {
    return localStorage.getItem(KEY)
  } catch (error) {
    // A browser that forbids storage throws SecurityError: then the choice lasts as long as the page.
    if (error instanceof DOMException) return null
    throw error
  }
}

let chosen = stored()

/** The scheme in force. */
export function scheme(): Scheme {
  if (chosen === "light" || chosen === "dark") return chosen
  return system.matches ? "dark" : "light"
}

function apply(): void {
  document.documentElement.dataset.scheme = scheme()
  for (const listener of listeners) listener()
}

/** Choose the other scheme. */
export function toggleScheme(): void {
  chosen = scheme() === "dark" ? "light" : "dark"
  try {
    localStorage.setItem(KEY, chosen)
  } catch (error) {
    if (!(error instanceof DOMException)) throw error // as above
  }
  apply()
}

/** Be told of changes. */
export function onScheme(listener: () => void): void {
  listeners.add(listener)
}

system.addEventListener("change", apply)
apply()
