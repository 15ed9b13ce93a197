// What is drawn: bars, the interval, the confusion matrix.
import { count, h, percent } from "./dom.js";

export function bars(rows, shown = (row) => row.value.toLocaleString("en")) {
  const largest = Math.max(...rows.map((row) => row.of ?? row.value), 1e-9);
  return h(
    "ul",
    { class: "bars" },
    rows.map((row) =>
      h(
        "li",
        { vars: { "--share": row.value / largest } },
        h("span", { class: "name" }, row.label),
        h("span", { class: "number" }, shown(row)),
        h("span", { class: "bar", "aria-hidden": "true" }),
      ),
    ),
  );
}

export function interval(expected) {
  return h("div", {
    class: "interval",
    "aria-hidden": "true",
    vars: { "--low": expected.low, "--high": expected.high, "--at": expected.accuracy },
  }, h("i"), h("b"));
}

export function matrix({ classes, counts }) {
  const head = h("tr", {}, h("th", { scope: "col" }, "labelled \\ said"), classes.map((name) => h("th", { scope: "col" }, name)));
  const body = classes.map((name, i) => {
    const total = counts[i].reduce((a, b) => a + b, 0);
    return h("tr", {}, h("th", { scope: "row" }, name), counts[i].map((n, j) =>
      h("td", { class: i === j ? "same" : null, vars: { "--h": total ? n / total : 0 } }, n || (i === j ? "0" : "·"))));
  });
  const caption = "What each labelled text is called by a classifier that has not seen it";
  return [
    h("p", {}, caption),
    h("div", { class: "wide", role: "region", "aria-label": caption, tabindex: "0" },
      h("table", { class: "confusion", "aria-label": caption }, h("thead", {}, head), h("tbody", {}, body))),
  ];
}

export function summary(task) {
  if (!task.mine) return "served; try texts";
  const known = `${task.classes ? count(task.classes, "class", "classes") : "no classes yet"} · ${task.labelled.toLocaleString("en")} of ${count(task.rows, "text")} labelled`;
  return task.accuracy === null ? known : `${known} · ${percent(task.accuracy)} to expect (${percent(task.low)} to ${percent(task.high)})`;
}

export function working(state) {
  return state.job !== null && ["waiting", "running", "cancelling"].includes(state.job.state);
}
