// Keep a recording longer, delete it; put a question off.
import { all, complain, find, Refused, say, submit, sure, tell } from "./common.js";

function does(button, act) {
  button?.addEventListener("click", async () => {
    complain("");
    try {
      await act();
    } catch (fault) {
      if (!(fault instanceof Refused)) throw fault;
      complain(fault);
    }
  });
}

for (const article of all("article.session")) {
  const { session } = article.dataset;
  does(find(".keep", article), async () => {
    await submit("/api/sessions/keep", { session });
    location.reload();
  });
  const discard = find(".discard", article);
  does(discard, async () => {
    if (!(await sure(discard.dataset.question))) return;
    await submit("/api/sessions/discard", { session });
    article.remove();
    tell(say("history.js.deleted"));
    find("#main").focus();
  });
  const snooze = find(".snooze", article);
  does(snooze, async () => {
    await submit("/api/questions/snooze", { prompt: Number(snooze.dataset.prompt) });
    article.remove();
    if (!find("article.session")) location.reload();
    tell(say("history.js.later"));
    find("#main").focus();
  });
}
