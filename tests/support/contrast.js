// The body of a function: lists texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, 1.4.3).
const luminance = (colour) => {
  const channels = colour.match(/[\d.]+/g).slice(0, 3).map((value) => value / 255);
  const [red, green, blue] = channels.map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const behind = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const colour = getComputedStyle(each).backgroundColor;
    if (!/, 0\)$/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
};
const texts = ".lead, .badge, figcaption, td, th, h1, p, .pill, a, button, dt, .readout, figure svg text";
return [...document.querySelectorAll(texts)]
  .filter((element) => element.getClientRects().length && element.textContent.trim())
  .filter((element) => !element.matches("svg .item, svg .point-number"))
  .map((element) => {
    const style = getComputedStyle(element);
    const own = luminance(element.closest("svg") ? style.fill : style.color);
    const other = luminance(behind(element));
    const ratio = (Math.max(own, other) + 0.05) / (Math.min(own, other) + 0.05);
    return [ratio.toFixed(2), element.textContent.trim().slice(0, 40)];
  })
  .filter(([ratio]) => ratio < 4.5);
