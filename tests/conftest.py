"""Its being here lets the tests of all folders import the helpers beside it (pytest puts this folder on the path)."""
