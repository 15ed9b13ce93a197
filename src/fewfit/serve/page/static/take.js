// What there is to take along.
import { address, download } from "./api.js";
import { announce, button, complain, h, section } from "./dom.js";

export function take(desk) {
  const { name } = desk;
  const get = (path, file) => () => download(address(name, path), file).then(() => announce(`${file} is saved`), complain);
  const code = h("pre", { tabindex: "0", "aria-label": "Python" });
  const copy = button("Copy", async () => {
    await navigator.clipboard.writeText(code.textContent);
    announce("Copied");
  });
  const zip = button("Classifier (zip)", get("artifact.zip", `${name}.zip`));
  const fitted = h("div", {}, h("p", {}, "Unpacked, three lines load it:"), code, navigator.clipboard ? copy : null);
  const element = section("Take it with you", h("p", { class: "row" }, button("Labels (CSV)", get("labels.csv", `${name}.csv`)), zip), fitted);
  return {
    element,
    update(state) {
      fitted.hidden = zip.hidden = !state.fitted;
      code.textContent = state.python;
    },
  };
}
