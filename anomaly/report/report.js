const byId = (id) => document.getElementById(id);
const dialog = document.querySelector("dialog");
const cards = [...document.querySelectorAll(".card")];
const shown = () => cards.filter((card) => !card.parentElement.hidden);
let current = null;

function view(card) {
  const image = card.querySelector("img");
  const badge = card.querySelector(".badge");
  current = card;
  byId("viewer-badge").className = badge.className;
  byId("viewer-badge").textContent = badge.textContent;
  byId("viewer-name").textContent = card.querySelector(".name").textContent;
  byId("viewer-place").textContent = `${shown().indexOf(card) + 1} of ${shown().length}`;
  byId("viewer-original").src = byId("viewer-under").src = image.dataset.original;
  byId("viewer-overlaid").src = image.src;
  byId("viewer-caption").textContent = image.dataset.caption;
  byId("viewer-facts").replaceChildren(card.querySelector("template").content.cloneNode(true));
  document.querySelector(".pictures").classList.toggle("wide", "wide" in image.dataset);
  if (!dialog.open) dialog.showModal();
}

function follow() {
  const card = cards.find((candidate) => candidate.hash === location.hash);
  if (!card) return dialog.close();
  if (card.parentElement.hidden) filter("");
  view(card);
}

function step(by) {
  const next = shown()[shown().indexOf(current) + by];
  if (!next) return;
  history.replaceState(null, "", next.hash);
  view(next);
}

function filter(word) {
  for (const { parentElement: item } of cards) item.hidden = Boolean(word) && item.dataset.decision !== word && item.dataset.mistake !== word;
  const failed = byId("failed");
  if (failed) failed.hidden = Boolean(word) && word !== "NOT_SCORED";
  for (const button of document.querySelectorAll("[data-show]")) button.setAttribute("aria-pressed", String(button.dataset.show === word));
}

for (const button of document.querySelectorAll("[data-show]")) button.addEventListener("click", () => filter(button.dataset.show));
for (const button of document.querySelectorAll("[data-step]")) button.addEventListener("click", () => step(Number(button.dataset.step)));
for (const card of cards) card.addEventListener("click", () => view(card));
byId("viewer-close").addEventListener("click", () => dialog.close());
byId("viewer-blend").addEventListener("input", (event) => { byId("viewer-overlaid").style.opacity = event.target.value / 100; });
dialog.addEventListener("close", () => {
  history.replaceState(null, "", "#");
  current?.focus();
});
dialog.addEventListener("keydown", (event) => {
  if (event.target.type === "range") return;
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
window.addEventListener("hashchange", follow);
follow();
