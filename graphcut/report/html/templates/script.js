"use strict";
(() => {
  const properties = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "font-family", "font-size", "font-weight"];

  const save = (name, blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  const standalone = (svg) => {
    const copy = svg.cloneNode(true);
    const from = [svg, ...svg.querySelectorAll("*")];
    const to = [copy, ...copy.querySelectorAll("*")];
    from.forEach((element, index) => {
      if (!["rect", "path", "circle", "text"].includes(element.localName)) return;
      const style = getComputedStyle(element);
      for (const property of properties) to[index].setAttribute(property, style.getPropertyValue(property));
    });
    const [, , width, height] = svg.getAttribute("viewBox").split(" ");
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    const paper = document.createElementNS(svg.namespaceURI, "rect");
    paper.setAttribute("width", width);
    paper.setAttribute("height", height);
    paper.setAttribute("fill", getComputedStyle(document.body).backgroundColor);
    copy.insertBefore(paper, copy.firstChild);
    return new XMLSerializer().serializeToString(copy);
  };

  for (const button of document.querySelectorAll("button[data-figure]")) {
    button.addEventListener("click", () => {
      const name = button.dataset.figure;
      save(`${name}.svg`, new Blob([standalone(document.getElementById(name))], { type: "image/svg+xml" }));
    });
  }

  for (const button of document.querySelectorAll("button[data-copy]")) {
    const words = button.textContent;
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source);
        button.textContent = "Selected: copy it with the keyboard";
      }
      setTimeout(() => { button.textContent = words; }, 2000);
    });
  }

  const theme = document.getElementById("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const now = document.documentElement.style.colorScheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    document.documentElement.style.colorScheme = now === "dark" ? "light" : "dark";
  });

  const readout = document.getElementById("strip-readout");
  const svg = document.getElementById("strip");
  if (!readout || !svg) return;
  const bars = [...svg.querySelectorAll(".bars .op")];
  const starts = bars.map((bar) => Number(bar.getAttribute("x")));
  let at = -1;
  const show = (index) => {
    if (index < 0 || index >= bars.length || index === at) return;
    if (at >= 0) bars[at].classList.remove("lit");
    at = index;
    bars[at].classList.add("lit");
    readout.textContent = bars[at].querySelector("title").textContent;
  };
  const under = (event) => {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
    show(Math.max(0, starts.findLastIndex((start) => start <= place)));
  };
  svg.addEventListener("pointermove", under);
  svg.addEventListener("pointerdown", under);
  svg.closest(".scroll").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10, Home: -bars.length, End: bars.length }[event.key];
    if (!step) return;
    event.preventDefault();
    show(Math.min(bars.length - 1, Math.max(0, at + step)));
  });
})();
