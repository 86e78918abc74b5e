// The picture of the reader's own, kept while the page is open: it cannot stand in an address.

let kept: File | null = null

export function keepPicture(file: File): void {
  kept = file
}

export function ownPicture(): File | null {
  return kept
}
