// Light or dark: the system's scheme until the reader chooses one. The choice is kept for later visits.

import type { Scheme } from "./colour"

const KEY = "bridgescope.scheme"
const system = matchMedia("(prefers-color-scheme: dark)")
const listeners = new Set<() => void>()

function stored(): string | null {
  try {
    return localStorage.getItem(KEY)
  } catch (error) {
    // A browser that forbids storage throws SecurityError; the choice then lasts as long as the page.
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
    if (!(error instanceof DOMException)) throw error // a browser that forbids storage, as above
  }
  apply()
}

/** Call a function after every change of the scheme. */
export function onScheme(listener: () => void): void {
  listeners.add(listener)
}

system.addEventListener("change", apply)
apply()
