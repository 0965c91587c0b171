// How a browser gets its token by the address that it is opened with.

import { keepToken } from "./stream.js";

// A token may come in the address once (#token=...); it moves to this tab's storage and out of the address.
// Or a word that is good for it once (#login=...), where the viewer cannot tell whose browser this is.
export async function adoptToken() {
  const words = new URLSearchParams(location.hash.slice(1));
  const [token, code] = [words.get("token"), words.get("login")];
  if (!token && !code) return;
  history.replaceState(null, "", location.pathname + location.search);
  if (token) return keepToken(token);
  const response = await fetch("api/v1/login", { method: "POST", body: code, cache: "no-store" });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.message);
  keepToken(answer.token);
}

// An address that is opened where the page is already changes nothing but what stands behind #.
addEventListener("hashchange", () => {
  if (/^#(token|login)=/.test(location.hash)) location.reload();
});
