"""The line: sources deliver parts, an inspector judges them, a reporter keeps the results; every part ends as one."""
