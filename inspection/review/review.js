const cards = [...document.querySelectorAll(".part")];
const verdicts = new Map();
let saved = true;

function judge(card, verdict) {
  if (verdict) verdicts.set(card, verdict);
  else verdicts.delete(card);
  for (const button of card.querySelectorAll("[data-verdict]")) button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict));
  document.getElementById("done").textContent = `${verdicts.size} of ${cards.length} judged`;
  saved = false;
}

function go(card, by) {
  const next = cards[cards.indexOf(card) + by];
  if (!next) return;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "start" });
}

const cell = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);

function table() {
  const rows = cards.map((card) => [...JSON.parse(card.dataset.row), verdicts.get(card) ?? ""]);
  return [["run", "part", "decision", "reason", "score", "why", "verdict"], ...rows].map((row) => row.map(cell).join(",") + "\r\n").join("");
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
  link.download = "verdicts.csv";
  link.click();
  URL.revokeObjectURL(link.href);
  saved = true;
}

for (const card of cards) {
  for (const button of card.querySelectorAll("[data-verdict]")) {
    button.addEventListener("click", () => judge(card, button.getAttribute("aria-pressed") === "true" ? "" : button.dataset.verdict));
  }
  card.addEventListener("keydown", (event) => {
    if (event.target !== card || event.ctrlKey || event.metaKey || event.altKey) return;
    const verdict = { o: "OK", n: "NG", " ": "" }[event.key.toLowerCase()];
    if (verdict !== undefined) {
      event.preventDefault();
      judge(card, verdict);
      if (verdict) go(card, 1);
    } else if (event.key === "ArrowDown" || event.key === "ArrowRight") {
      event.preventDefault();
      go(card, 1);
    } else if (event.key === "ArrowUp" || event.key === "ArrowLeft") {
      event.preventDefault();
      go(card, -1);
    }
  });
}
document.getElementById("save").addEventListener("click", save);
addEventListener("beforeunload", (event) => { if (!saved) event.preventDefault(); });
