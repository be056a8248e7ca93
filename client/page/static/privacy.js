// Consents, phones, locking, forgetting.
import { all, complain, find, listen, Refused, say, send, stopListening, submit } from "./common.js";
import "./entrance.js";

function does(element, kind, act) {
  element?.addEventListener(kind, async (event) => {
    event.preventDefault();
    complain("");
    try {
      await act(event);
    } catch (fault) {
      if (!(fault instanceof Refused)) throw fault;
      complain(fault);
      find(".wrong").scrollIntoView({ block: "center" });
    }
  });
}

for (const choice of all("[data-kind]")) {
  const { kind } = choice.dataset;
  const change = (path) => async () => {
    await submit(path, { kind });
    location.reload();
  };
  does(find(".withdraw", choice), "click", change("/api/withdraw"));
  does(find(".agree", choice), "click", change("/api/agree"));
}
does(find("#join"), "submit", async () => {
  const button = find("#join button");
  button.disabled = true; // the server may take its time
  try {
    await send("/api/join", { line: find("#invitation").value });
  } finally {
    button.disabled = false;
  }
  location.reload();
});
does(find("#unpair"), "click", async () => {
  await send("/api/phones/unpair-others");
  find("#phones").textContent = say("privacy.js.unpaired");
});
does(find("#lock"), "click", async () => {
  await send("/api/lock");
  location.assign("/");
});
does(find("#forget"), "submit", async () => {
  stopListening(); // a wearable without a wearer would lead to the first visit, while this phone is still paired
  try {
    await send("/api/forget", { wearer: find("#forget-wearer").value });
  } catch (fault) {
    listen();
    throw fault;
  }
  localStorage.clear();
  sessionStorage.clear();
  location.assign("/pair");
});
