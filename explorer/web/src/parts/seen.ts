// Defers work for an element until the element is about to scroll into view.

const waiting = new WeakMap<Element, () => void>()

const observer = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue
      observer.unobserve(entry.target)
      waiting.get(entry.target)?.()
      waiting.delete(entry.target)
    }
  },
  { rootMargin: "300px" },
)

/** Call `then` once, when the element is within 300 pixels of the window. */
export function whenSeen(element: Element, then: () => void): void {
  waiting.set(element, then)
  observer.observe(element)
}
