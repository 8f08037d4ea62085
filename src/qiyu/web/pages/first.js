// Before anything is drawn: the theme that was chosen, so that nothing flashes.
{
  let theme = "";
  try {
    theme = localStorage.getItem("qiyu.theme") ?? "";
  } catch {
    // a browser that keeps nothing
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}
