// Builds elements. Text from the server becomes text nodes, never markup.

export const byId = (id) => document.getElementById(id);

export function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, String(value));
  }
  node.append(...children.flat().filter((child) => child != null && child !== false));
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const drawn = new WeakMap();

/** Redraws only if the facts differ, so that selections and scroll positions stay. */
export function draw(node, facts, make) {
  const now = JSON.stringify(facts);
  if (drawn.get(node) === now) return;
  drawn.delete(node);
  // If drawing fails, no older facts may stay on the page.
  node.replaceChildren("This part cannot be shown.");
  node.replaceChildren(...[make()].flat());
  drawn.set(node, now);
}

export function table(columns, rows, empty) {
  if (!rows.length) return h("p", { class: "dim" }, empty);
  const head = h("tr", null, columns.map((name) => h("th", { scope: "col" }, name)));
  const body = rows.map((row) => h("tr", { class: row.class || "" }, row.cells.map((cell, at) => h("td", { class: String(cell).length > 24 ? "long" : "", "data-name": columns[at] }, cell))));
  return h("table", null, h("thead", null, head), h("tbody", null, body));
}

/** A line to be copied, with its button. */
export function copyLine(text) {
  const code = h("code", { class: "line" }, text);
  const button = h("button", { type: "button", class: "plain", "aria-label": `Copy: ${text}` }, "Copy");
  button.addEventListener("click", async () => {
    setText(button, (await copy(text, code)) ? "Copied" : "Selected: press Ctrl+C");
    setTimeout(() => setText(button, "Copy"), 3000);
  });
  return h("div", { class: "copy-line" }, code, button);
}

async function copy(text, code) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Over plain HTTP from another machine there is no clipboard: the text is selected instead.
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    return false;
  }
}
