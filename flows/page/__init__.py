"""The page of the fleet: what it says (`flows.page.views`), and how it looks (the files beside)."""
