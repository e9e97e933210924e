# Sets up MOVA Studio in this folder; for those who prefer PowerShell. install.bat does the work.
#   powershell -ExecutionPolicy Bypass -File install.ps1
$env:MOVA_QUIET = "1"
& "$PSScriptRoot\install.bat" @args
exit $LASTEXITCODE
