// Elements are made here and nowhere else: what a user wrote is always text, never markup.

export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    } else if (name === "vars") {
      for (const [key, number] of Object.entries(value)) element.style.setProperty(key, number);
    } else if (name === "value" || name === "checked" || name === "disabled") {
      element[name] = value;
    } else {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  fill(element, ...children);
  return element;
}

export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

let counter = 0;

export function field(label, control, hint = null) {
  control.id ||= `field-${(counter += 1)}`;
  const told = hint === null ? null : h("small", { id: `${control.id}-hint` }, hint);
  if (told) control.setAttribute("aria-describedby", told.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, told);
}

export function section(title, ...children) {
  const id = `section-${(counter += 1)}`;
  return h("section", { "aria-labelledby": id }, h("h2", { id }, title), ...children);
}

export function button(text, click, props = {}) {
  return h("button", { type: "button", on: { click }, ...props }, text);
}

// Said to those who do not see the page.
export function announce(text) {
  const live = document.getElementById("live");
  live.textContent = live.textContent === text ? `${text} ` : text;
}

export function complain(error) {
  const close = button("Close", () => fill(document.getElementById("alert")));
  fill(document.getElementById("alert"), h("p", {}, error.message || String(error)), close);
}

export function quiet() {
  fill(document.getElementById("alert"));
}

export function percent(share) {
  return `${Math.round(share * 100)}%`;
}

export function count(n, what, many = `${what}s`) {
  return `${n.toLocaleString("en")} ${n === 1 ? what : many}`;
}
