// The body of a function: lists texts of figures, and parts of a page, that cover one another or stick out.
const parts = [
  "h1, h2, h3, .lead, .badge, nav a, .downloads, .readout, .legend li, .points li, .scroll, pre, .cards > li",
  ".switches label, dl",
].join(", ");
const found = [];
const words = (element) => `${element.localName} ${element.textContent.trim().slice(0, 40)}`;
const shown = (element) => {
  const box = element.getBoundingClientRect();
  return box.width > 0.5 && box.height > 0.5 && element.checkVisibility({ visibilityProperty: true });
};
const covering = (elements) => {
  const boxes = elements.filter(shown).map((element) => [element, element.getBoundingClientRect()]);
  for (let a = 0; a < boxes.length; a++) {
    for (let b = a + 1; b < boxes.length; b++) {
      const [one, first] = boxes[a];
      const [other, second] = boxes[b];
      if (one.contains(other) || other.contains(one)) continue;
      const across = Math.min(first.right, second.right) - Math.max(first.left, second.left);
      const down = Math.min(first.bottom, second.bottom) - Math.max(first.top, second.top);
      if (across > 1 && down > 3) found.push(`${words(one)} | ${words(other)}`);
    }
  }
};
const figures = [...document.querySelectorAll("figure svg[id]")];
figures.forEach((svg) => covering([...svg.querySelectorAll("text")]));
covering([...document.querySelectorAll(parts)]);
for (const element of document.querySelectorAll("body *")) {
  if (!shown(element) || element.closest(".scroll, .skip, details")) continue;
  if (element.getBoundingClientRect().right > innerWidth + 1) found.push(`outside of the page: ${words(element)}`);
}
for (const svg of figures) {
  const frame = svg.getBoundingClientRect();
  for (const text of svg.querySelectorAll("text")) {
    const own = text.getBoundingClientRect();
    const across = own.left < frame.left - 1 || own.right > frame.right + 1;
    const down = own.top < frame.top - 1 || own.bottom > frame.bottom + 1;
    if (shown(text) && (across || down)) found.push(`outside of ${svg.id}: ${words(text)}`);
  }
}
return found;
