// Says what of a page somebody could not read, reach or be told by a screen reader:
// a subset of WCAG 2.2 AA that a program can decide, one line for each fault.
(() => {
  "use strict";
  const faults = new Set();
  const all = (selector) => [...document.querySelectorAll(selector)];
  const shown = (e) => e.checkVisibility({ visibilityProperty: true });
  const about = (e) => e.cloneNode(false).outerHTML.slice(0, 120);
  const words = (e) => (e ? e.textContent.trim() : "");

  // nameOf is what a screen reader calls an element; a placeholder is no name.
  function nameOf(e) {
    const by = (e.getAttribute("aria-labelledby") || "").split(/\s+/).filter(Boolean).map((id) => words(document.getElementById(id)));
    const labels = [...(e.labels || [])].map(words);
    const images = [...e.querySelectorAll("img")].map((i) => i.alt);
    return [e.getAttribute("aria-label"), ...by, ...labels, e.matches("input, select, textarea") ? "" : words(e), ...images, e.title].find((n) => n && n.trim());
  }

  function structure() {
    if (!document.documentElement.lang) faults.add("the page has no language");
    if (!document.title) faults.add("the page has no title");
    if (all("main").length !== 1) faults.add("the page has not one main part");
    const headings = all("h1, h2, h3, h4, h5, h6").filter(shown);
    if (headings.filter((h) => h.tagName === "H1").length !== 1) faults.add("the page has not one h1");
    let level = 0;
    for (const h of headings) {
      const next = Number(h.tagName[1]);
      if (next > level + 1) faults.add(`a heading skips a level: ${h.tagName} ${words(h)}`);
      if (!words(h)) faults.add(`a heading is empty: ${about(h)}`);
      level = next;
    }
    const ids = all("[id]").map((e) => e.id);
    for (const id of ids.filter((id, i) => ids.indexOf(id) !== i)) faults.add(`two elements have the id ${id}`);
    for (const e of all("[aria-labelledby]")) {
      if (e.getAttribute("aria-labelledby").split(/\s+/).some((id) => !document.getElementById(id))) faults.add(`its label is missing: ${about(e)}`);
    }
  }

  function names() {
    for (const e of all("a[href], button, input:not([type=hidden]), select, textarea, summary, nav, dialog, svg[role=img]").filter(shown)) {
      if (!nameOf(e) && !e.querySelector("title")) faults.add(`it has no name: ${about(e)}`);
    }
    for (const e of all("img:not([alt])")) faults.add(`an image has no alt: ${about(e)}`);
    for (const table of all("table")) {
      if (!table.querySelector("th")) faults.add(`a table has no header: ${about(table)}, ${words(table).slice(0, 60)}`);
      for (const th of table.querySelectorAll("th")) if (!words(th)) faults.add(`a header is empty: ${words(th.parentElement).slice(0, 120)}`);
    }
  }

  function colour(text) {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    return { r, g, b, a };
  }
  const over = (top, ground) => {
    const mix = (c) => top[c] * top.a + ground[c] * (1 - top.a);
    return { r: mix("r"), g: mix("g"), b: mix("b"), a: 1 };
  };
  function ground(e) {
    if (!e) return { r: 255, g: 255, b: 255, a: 1 };
    const own = colour(getComputedStyle(e).backgroundColor);
    return own.a === 1 ? own : over(own, ground(e.parentElement));
  }
  function luminance(c) {
    const [r, g, b] = [c.r, c.g, c.b].map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }
  function contrast(a, b) {
    const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (light + 0.05) / (dark + 0.05);
  }

  // legible compares the colour of a text with that of what it is on.
  function legible(e, style, text) {
    const below = ground(e);
    const ratio = contrast(over(colour(e.closest("svg") ? style.fill : style.color), below), below);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) faults.add(`contrast is ${ratio.toFixed(2)}: ${about(e)} ${text.slice(0, 40)}`);
  }

  function contrasts() {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const e = walker.currentNode.parentElement;
      const text = walker.currentNode.data.trim();
      if (text && shown(e) && !e.matches("title, desc, option, script, style")) legible(e, getComputedStyle(e), text);
    }
    for (const e of all("input, select, textarea").filter(shown)) {
      legible(e, getComputedStyle(e), e.value || "");
      if (e.placeholder) legible(e, getComputedStyle(e, "::placeholder"), e.placeholder);
    }
  }

  function focus() {
    for (const e of all("a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex]").filter(shown)) {
      e.focus({ focusVisible: true, preventScroll: true });
      const style = getComputedStyle(e);
      if (document.activeElement !== e) faults.add(`it takes no focus: ${about(e)}`);
      else if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) === 0) faults.add(`its focus cannot be seen: ${about(e)}`);
    }
  }

  function width() {
    if (document.documentElement.scrollWidth > innerWidth) {
      const wide = all("main *").find((e) => shown(e) && e.getBoundingClientRect().right > innerWidth + 1);
      faults.add(`the page is wider than its window: ${wide ? about(wide) : "not its main part"}`);
    }
  }

  for (const e of all("details, dialog")) e.open = true;
  for (const check of [structure, names, contrasts, focus, width]) check();
  return [...faults];
})();
